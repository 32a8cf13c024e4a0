"""The page of /metrics as its readers see it: promtool, the Python client's parsers, gzip."""

import gzip
import itertools
import math
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import expositions
from expositions import FILES, OPENMETRICS, TEXT, get
from processes import program

PARSERS = {TEXT: read_text, OPENMETRICS: read_openmetrics}


@pytest.fixture
def full(holdall):
    """A server to which every exporter's page was pushed; what the last one said stands."""
    for file in FILES:
        expositions.push(holdall, file.read_bytes())
    *_, last = expositions.read(FILES[-1].read_text()).samples
    expositions.wait_for(holdall, last)
    return holdall


def pushed_samples() -> dict[expositions.Series, float]:
    """What the server holds after every page was pushed."""
    held = {}
    for file in FILES:
        held |= expositions.read(file.read_text()).samples
    return held


def promtool(page: bytes) -> subprocess.CompletedProcess:
    """What promtool says of a page."""
    command = [program("promtool", "prometheus"), "check", "metrics"]
    return subprocess.run(command, input=page, capture_output=True, check=False)


def test_promtool_has_nothing_to_say_about_our_own_metrics(holdall):
    page, _ = get(holdall.url("/metrics"))
    assert b"# TYPE holdall_" in page
    done = promtool(page)
    assert (done.returncode, done.stderr) == (0, b"")


def test_promtool_can_read_what_exporters_pushed(full):
    page, _ = get(full.url("/metrics"))
    done = promtool(page)
    # 3 is what it thinks of the exporters' names; 1 is a page that it can't read.
    assert done.returncode in (0, 3), done.stderr.decode()


@pytest.mark.parametrize("accept", PARSERS, ids=["text", "openmetrics"])
def test_the_python_parser_reads_every_pushed_value_once(full, accept):
    body, headers = get(full.url("/metrics"), Accept=accept)
    assert headers["content-type"].startswith(accept.split(";")[0])
    families = list(PARSERS[accept](body.decode()))
    # The parser of the text format strips `_total`, so that `x_total` and `x` are two of a name.
    names = [(family.name, family.type if accept == TEXT else "") for family in families]
    assert len(set(names)) == len(names), "a family is there twice"
    found = {}
    for sample in itertools.chain.from_iterable(family.samples for family in families):
        labels = {name: value for name, value in sample.labels.items() if value}
        series = as_written(accept, {"__name__": sample.name, **labels})
        assert series not in found, f"{sample} is there twice"
        found[series] = sample.value
    missing = {
        series: value
        for series, value in pushed_samples().items()
        if not any(is_same(found.get(name), value) for name in names_of(accept, series))
    }
    assert missing == {}


def as_written(accept: str, labels: dict[str, str]) -> expositions.Series:
    """The series as the format writes it: OpenMetrics has one way to write a bound, `1` is `1.0`."""
    if accept == OPENMETRICS:
        bounds = {name: str(float(labels[name])) for name in ("le", "quantile") if name in labels}
        labels = labels | bounds
    return frozenset(labels.items())


def names_of(accept: str, series: expositions.Series):
    """The series, and what the parser of the text format calls a counter without `_total`."""
    labels = dict(series)
    yield as_written(accept, labels)
    if accept == TEXT:
        yield as_written(accept, labels | {"__name__": labels["__name__"] + "_total"})


def is_same(found: float | None, value: float) -> bool:
    """Equal, and NaN equals NaN."""
    return found is not None and (found == value or (math.isnan(found) and math.isnan(value)))


def test_families_stand_together(full):
    page = expositions.read(get(full.url("/metrics"))[0].decode())
    runs = [name for name, _ in itertools.groupby(map(family_of(page), page.order))]
    assert len(set(runs)) == len(runs)


def family_of(page: expositions.Exposition):
    """Returns the family of a sample's name."""

    def family(name: str) -> str:
        for suffix in ("_bucket", "_sum", "_count"):
            base = name.removesuffix(suffix)
            if base != name and page.types.get(base) in ("histogram", "summary"):
                return base
        return name

    return family


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_gzip_holds_what_the_plain_page_holds(full, accept):
    plain, _ = get(full.url("/metrics"), Accept=accept)
    packed, headers = get(full.url("/metrics"), Accept=accept, Accept_Encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert "accept-encoding" in headers["vary"].lower()
    assert len(packed) < len(plain) / 4
    assert pushed_lines(gzip.decompress(packed)) == pushed_lines(plain)


def pushed_lines(page: bytes) -> list[str]:
    """The lines that no request changes: all but holdall's own."""
    own = ("holdall_", "# HELP holdall_", "# TYPE holdall_", "# UNIT holdall_")
    return [line for line in page.decode().splitlines() if not line.startswith(own)]
