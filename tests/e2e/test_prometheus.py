"""A real Prometheus finds everything that real exporters pushed, exactly."""

import json
import math
import struct
import urllib.parse

import pytest

import expositions
from expositions import FILES, get
from processes import Server, program, wait_until

CONFIGURATION = """
scrape_configs:
  - job_name: holdall
    honor_labels: true
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


@pytest.fixture
def start_prometheus(tmp_path):
    """Starts a Prometheus that scrapes a server every second."""
    running = []

    def start(holdall: Server) -> Server:
        def command(server):
            file = server.folder / "prometheus.yml"
            file.write_text(CONFIGURATION.format(port=holdall.port))
            return [
                program("prometheus", "prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={server.folder}/data",
                f"--web.listen-address=127.0.0.1:{server.port}",
            ]

        server = Server("prometheus", tmp_path, command, ready="/-/ready")
        running.append(server)
        return server.start()

    yield start
    for server in running:
        server.stop()


def ask(prometheus: Server, path: str, **parameters: str):
    """The data of a response of Prometheus' API."""
    body, _ = get(prometheus.url(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
    response = json.loads(body)
    assert response["status"] == "success"
    return response["data"]


def samples(prometheus: Server) -> dict[expositions.Series, float]:
    """Every sample that Prometheus holds now, by its labels."""
    data = ask(prometheus, "query", query='{__name__!=""}')
    assert data["resultType"] == "vector"
    return {frozenset(found["metric"].items()): float(found["value"][1]) for found in data["result"]}


def with_target_labels(series: expositions.Series, port: int) -> expositions.Series:
    """The series as Prometheus stores it: with the labels of the target that it lacks."""
    target = {"job": "holdall", "instance": f"127.0.0.1:{port}"}
    return frozenset((target | dict(series)).items())


def bits(value: float) -> bytes:
    """The value to the bit; every NaN is one."""
    return b"NaN" if math.isnan(value) else struct.pack(">d", value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_prometheus_finds_every_series_with_its_exact_value(file, holdall, start_prometheus):
    pushed = expositions.read(file.read_text())
    expositions.push(holdall, file.read_bytes())
    prometheus = start_prometheus(holdall)
    expected = {
        with_target_labels(series, holdall.port): bits(value)
        for series, value in pushed.samples.items()
    }
    assert len(expected) == len(pushed.samples)
    wait_until(
        lambda: next(iter(expected)) in samples(prometheus), "Prometheus has scraped the push", pause=0.2
    )

    found = {series: bits(value) for series, value in samples(prometheus).items()}

    assert {series: found.get(series) for series in expected} == expected
    invented = {
        dict(series)["__name__"]
        for series in found.keys() - expected.keys()
        if not dict(series)["__name__"].startswith(("holdall_", "scrape_", "up"))
    }
    assert invented == set(), "what is not pushed must be holdall's own"
    assert_metadata(pushed, ask(prometheus, "metadata"))


def assert_metadata(pushed: expositions.Exposition, metadata: dict) -> None:
    """Type and help are what was pushed."""
    expected = {
        name: [{"type": kind.replace("untyped", "unknown"), "help": pushed.helps.get(name, "")}]
        for name, kind in pushed.types.items()
    }
    found = {
        name: [{"type": entry["type"], "help": entry["help"]} for entry in metadata.get(name, [])]
        for name in expected
    }
    assert found == expected
