"""The page of /metrics as its readers see it: promtool, the Python client's parsers, gzip."""

import gzip
import itertools
import json
import math
import subprocess
import urllib.parse
import urllib.request
from random import Random

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


BOUNDS = ["0.5", "1", "1.0", "+Inf", "inf", "NaN", "-NaN", "+nan", "1e999", "0x1p4", "junk"]
TYPES = ["counter", "gauge", "histogram", "summary", "info", "stateset", "untyped"]
NAMES = ["x", "x_bucket", "x_sum", "x_count", "x_total", "x_created", "x_info", "y", "y_sum_count"]
VALUES = ["0", "1", "-1.5", "3", "NaN", "+Inf"]


def random_push(random: Random) -> tuple[str, dict[expositions.Series, float]]:
    """Some lines of a text body, with a type for some of their families, and the samples in them."""
    lines = [f"# TYPE {family} {random.choice(TYPES)}" for family in ("x", "x_total", "y", "x_info")]
    lines = random.sample(lines, random.randrange(len(lines) + 1))
    samples = {}
    for _ in range(random.randrange(1, 20)):
        labels = {
            name: random.choice(values)
            for name, values in {"a": ["1", "2"], "le": BOUNDS, "quantile": BOUNDS}.items()
            if random.random() < 0.4
        }
        name, value = random.choice(NAMES), random.choice(VALUES)
        series = frozenset((labels | {"__name__": name}).items())
        if series not in samples:
            text = ",".join(f'{label}="{labels[label]}"' for label in labels)
            lines.append(f"{name}{{{text}}} {value}")
            samples[series] = float(value)
    return "\n".join(lines) + "\n", samples


@pytest.mark.parametrize("seed", range(3))
def test_any_changes_lead_to_pages_that_strict_readers_read(start_holdall, seed):
    random = Random(seed)
    # So few deletions are remembered that the pages are built anew again and again.
    holdall = start_holdall(HOLDALL_SERIES__MAX_TOMBSTONES="2", HOLDALL_REFRESH__INTERVAL="10ms")
    held: dict[expositions.Series, float] = {}
    for number in range(25):
        body, samples = random_push(random)
        expositions.push(holdall, body.encode())
        held |= samples
        if random.random() < 0.5:
            name = random.choice(NAMES)
            delete(holdall, f'{{__name__="{name}", a="1"}}')
            gone = {("__name__", name), ("a", "1")}
            held = {series: value for series, value in held.items() if not gone <= series}
        marker = frozenset({("__name__", "marker"), ("round", str(number))})
        expositions.push(holdall, f'marker{{round="{number}"}} 1\n'.encode())
        held[marker] = 1.0
        expositions.wait_for(holdall, marker)
        text, _ = get(holdall.url("/metrics"), Accept=TEXT)
        shown = expositions.read(text.decode()).samples
        pushed = own_removed(shown)
        assert pushed.keys() == held.keys()
        assert all(is_same(pushed[series], value) for series, value in held.items())
        assert promtool(text).returncode in (0, 3), text.decode()
        openmetrics, _ = get(holdall.url("/metrics"), Accept=OPENMETRICS)
        families = read_openmetrics(openmetrics.decode())
        values = [
            str(float(sample.value))
            for family in families
            for sample in family.samples
            if not family.name.startswith("holdall_")
        ]
        assert sorted(values) == sorted(map(str, held.values()))
        assert_filtered_pages_show_what_matches(holdall, random.choice(NAMES), held)


def assert_filtered_pages_show_what_matches(holdall, name: str, held: dict) -> None:
    """Checks the pages of what has a name, and of what has the label `a`, as strict readers see them."""
    for selector, wanted in {
        name: lambda labels: labels["__name__"] == name,
        '{a="1"}': lambda labels: labels.get("a") == "1",
        '{le!=""}': lambda labels: "le" in labels and not labels["__name__"].startswith("holdall_"),
    }.items():
        query = "?match[]=" + urllib.parse.quote(selector)
        expected = {series: value for series, value in held.items() if wanted(dict(series))}
        text, _ = get(holdall.url("/metrics" + query), Accept=TEXT)
        shown = own_removed(expositions.read(text.decode()).samples)
        assert shown.keys() == expected.keys(), selector
        assert all(is_same(shown[series], value) for series, value in expected.items())
        openmetrics, _ = get(holdall.url("/metrics" + query), Accept=OPENMETRICS)
        families = list(read_openmetrics(openmetrics.decode()))
        values = [
            str(float(sample.value))
            for family in families
            for sample in family.samples
            if not family.name.startswith("holdall_")
        ]
        assert sorted(values) == sorted(map(str, expected.values())), openmetrics.decode()


def own_removed(samples: dict) -> dict:
    """The samples without holdall's own."""
    return {s: v for s, v in samples.items() if not dict(s)["__name__"].startswith("holdall_")}


def delete(holdall, selector: str) -> None:
    """Deletes the series that a selector finds."""
    request = urllib.request.Request(
        holdall.url("/v1/series/delete"),
        data=json.dumps({"match": [selector]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
