"""The files in deploy/ and the compose file say what their readers understand, and work together."""

import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from conftest import REPOSITORY
from processes import clean_environment, free_port, program, status_of, wait_until

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
REPLICAS = ["holdall-1", "holdall-2"]


def test_the_compose_file_follows_the_specification():
    # The reader wants it without YAML's own means of saying things once.
    assert PyCompose.from_json(json.dumps(COMPOSE)).service_names() == list(COMPOSE["services"])
    broken = json.loads(json.dumps(COMPOSE))
    broken["services"]["valkey"]["helthcheck"] = {}
    with pytest.raises(ValueError):
        PyCompose.from_json(json.dumps(broken))


def test_prometheus_accepts_its_configuration(run):
    run(program("promtool", "prometheus"), "check", "config", REPOSITORY / "deploy" / "prometheus.yml")


@pytest.mark.parametrize("replica", REPLICAS)
def test_holdall_accepts_the_settings_of_the_compose_file(binary, run, replica):
    settings = COMPOSE["services"][replica]["environment"]
    assert all(name.startswith("HOLDALL_") for name in settings)
    shown = run(binary, "check-config", env=clean_environment() | settings)
    assert 'store.backend = "redis"' in shown


def test_the_compose_file_names_what_is_there():
    services = COMPOSE["services"]
    assert set(services) == {*REPLICAS, "balancer", "valkey", "prometheus"}
    for name in REPLICAS:
        build = services[name]["build"]
        assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()
        assert services[name]["read_only"] is True
    for service in services.values():
        for published in service.get("ports", []):
            assert published.startswith("127.0.0.1:"), "nothing is open to the network by default"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (REPOSITORY / source).is_file()
            else:
                assert source in COMPOSE["volumes"]
        for other in service.get("depends_on", {}):
            assert other in services
            image_checks = "build" in services[other]
            assert image_checks or "healthcheck" in services[other], f"{other} says how it is"


def in_context(path: str, rules: list[str]) -> bool:
    """Whether .dockerignore leaves a file in the build context: the last rule that matches it, or a folder that it is
    in, decides. Of the patterns only `*` is known here."""
    parts = path.split("/")
    kept = True
    for rule in rules:
        pattern = rule.removeprefix("!").strip("/").split("/")
        folder = parts[: len(pattern)]
        if len(folder) == len(pattern) and all(map(fnmatch.fnmatchcase, folder, pattern)):
            kept = rule.startswith("!")
    return kept


def test_the_build_context_has_what_its_rules_leave():
    rules = ["*", "!src", "!benches/*.rs", "src/secret.rs"]
    kept = ["src/main.rs", "src/a/b.rs", "benches/x.rs"]
    left_out = ["README.md", "benches/deep/x.rs", "benches/x.py", "src/secret.rs", "target/src/x"]
    assert [path for path in kept + left_out if in_context(path, rules)] == kept


def test_the_image_is_built_from_what_is_in_its_build_context(run, tmp_path):
    lines = (REPOSITORY / "deploy" / "Dockerfile").read_text().splitlines()
    assert "USER holdall" in lines
    assert any(line.startswith("HEALTHCHECK") and '"healthcheck"' in line for line in lines)
    # 1. The context: what Docker sends of the files that are committed.
    rules = [rule for rule in (REPOSITORY / ".dockerignore").read_text().split() if rule[0] != "#"]
    context, image = tmp_path / "context", tmp_path / "image"
    for path in run("git", "-C", REPOSITORY, "ls-files").splitlines():
        if in_context(path, rules):
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / path, context / path)
    # 2. The image: what COPY takes from it.
    image.mkdir()
    stage = lines[: lines.index("FROM debian:bookworm-slim")]
    for line in stage:
        if line.startswith("COPY"):
            *sources, target = line.split()[1:]
            for source in sources:
                found_any = sorted(context.glob(source))
                assert found_any, f"{source} is not in the build context"
                for found in found_any:
                    # As COPY does: of a folder what is in it.
                    if found.is_dir():
                        shutil.copytree(found, image / target, dirs_exist_ok=True)
                    else:
                        (image / target).mkdir(exist_ok=True)
                        shutil.copy(found, image / target)
    settings = Path(".cargo", "config.toml")
    assert (image / settings).exists() == (REPOSITORY / settings).exists(), "with the same settings"
    # 3. The command, with its own flags; but it checks where the image compiles for a release, and the dependencies
    # are those that the tests have built.
    (command,) = [line for line in stage if line.startswith("RUN cargo build")]
    flags = [word for word in command.split()[3:] if word != "--release"]
    assert "--locked" in flags
    shared = {**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "target")}
    run("cargo", "check", *flags, cwd=image, env=shared, timeout=900)


def test_prometheus_scrapes_the_services_of_the_compose_file():
    configuration = yaml.safe_load((REPOSITORY / "deploy" / "prometheus.yml").read_text())
    pushed, own = configuration["scrape_configs"]
    port = COMPOSE["services"]["holdall-1"]["environment"]["HOLDALL_SERVER__LISTEN"].rsplit(":", 1)[1]
    assert pushed["static_configs"] == [{"targets": ["balancer:8720"]}]
    assert pushed["honor_labels"] is True, "pushed labels stay as they were pushed"
    assert own["static_configs"] == [{"targets": [f"{name}:{port}" for name in REPLICAS]}]


def request(method: str, url: str, body: dict | None = None) -> dict:
    """Sends JSON and reads JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=30) as response:
        return json.load(response)


def test_replicas_behind_the_balancer_are_one_server(binary, tmp_path):
    """What the compose file describes, without containers: its settings, its nginx.conf."""
    ports = {name: free_port() for name in [*REPLICAS, "balancer"]}
    redis = free_port()
    script = subprocess.Popen(
        [REPOSITORY / "deploy" / "run-redis", binary, tmp_path],
        env=clean_environment()
        | {"REDIS_PORT": str(redis), "REPLICA_PORTS": " ".join(str(ports[name]) for name in REPLICAS)},
    )
    configuration = (REPOSITORY / "deploy" / "nginx.conf").read_text()
    for name in REPLICAS:
        configuration = configuration.replace(f"{name}:8720", f"127.0.0.1:{ports[name]}")
    configuration = configuration.replace("listen 8720", f"listen 127.0.0.1:{ports['balancer']}")
    (tmp_path / "nginx.conf").write_text(configuration)
    (tmp_path / "logs").mkdir()
    extra = f"daemon off; pid {tmp_path}/nginx.pid; error_log stderr;"
    command = [program("nginx", "nginx-light"), "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", extra]
    nginx = subprocess.Popen(command)
    try:
        base = f"http://127.0.0.1:{ports['balancer']}"
        direct = [f"http://127.0.0.1:{ports[name]}" for name in REPLICAS]
        for url in [*direct, base]:
            wait_until(lambda: status_of(f"{url}/readyz") == 200, f"{url} is ready")
        locks = [request("POST", f"{base}/v1/locks/job/once", {"ttl": "60s"}) for _ in range(8)]
        assert [lock["acquired"] for lock in locks].count(True) == 1
        points = [{"name": "pushed", "labels": {"n": str(n)}, "value": n} for n in range(20)]
        batch = {"role": "leader", "source": "leader_scrape", "points": points}
        assert request("POST", f"{base}/v1/series", batch)["created"] == 20

        def page(url: str) -> list[str]:
            with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
                lines = response.read().decode().splitlines()
            return [line for line in lines if re.match("pushed", line)]

        for url in [*direct, base]:
            wait_until(lambda: len(page(url)) == 20, f"{url} shows what was pushed")
        assert page(direct[0]) == page(direct[1])
    finally:
        nginx.terminate()
        nginx.wait(30)
        script.send_signal(signal.SIGTERM)
        script.wait(60)
