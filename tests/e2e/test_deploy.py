"""The files in deploy/ and the compose file say what their readers understand."""

import yaml

from conftest import REPOSITORY
from processes import clean_environment, program

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())


def test_prometheus_accepts_its_configuration(run):
    run(program("promtool", "prometheus"), "check", "config", REPOSITORY / "deploy" / "prometheus.yml")


def test_holdall_accepts_the_settings_of_the_compose_file(binary, run):
    settings = COMPOSE["services"]["holdall"]["environment"]
    assert all(name.startswith("HOLDALL_") for name in settings)
    run(binary, "check-config", env=clean_environment() | settings)


def test_the_compose_file_names_what_is_there():
    services = COMPOSE["services"]
    assert set(services) == {"holdall", "prometheus"}
    build = services["holdall"]["build"]
    assert (REPOSITORY / build["context"] / build["dockerfile"]).is_file()
    for service in services.values():
        for published in service["ports"]:
            assert published.startswith("127.0.0.1:"), "nothing is open to the network by default"
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (REPOSITORY / source).is_file()
            else:
                assert source in COMPOSE["volumes"]


def test_prometheus_scrapes_the_service_of_the_compose_file():
    configuration = yaml.safe_load((REPOSITORY / "deploy" / "prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    listen = COMPOSE["services"]["holdall"]["environment"]["HOLDALL_SERVER__LISTEN"]
    assert job["static_configs"] == [{"targets": ["holdall:" + listen.rsplit(":", 1)[1]]}]
    assert job["honor_labels"] is True, "pushed labels stay as they were pushed"
