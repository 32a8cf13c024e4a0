"""The examples of the documentation run as they stand, against the real binary."""

import json
import re
import sys
import urllib.request

import pytest

from conftest import REPOSITORY
from expositions import get

WRITTEN = "http://127.0.0.1:8720"


def examples(path: str, language: str, heading: str | None = None) -> list[str]:
    """The code blocks of a document in one language, or of one of its sections."""
    text = (REPOSITORY / path).read_text()
    if heading is not None:
        (text,) = re.findall(rf"^### {heading}\n(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run_shell(holdall, run, tmp_path):
    """Runs blocks of shell, one after the other, and returns what they print."""

    def run_shell(blocks: list[str]) -> str:
        script = "\n".join(blocks)
        assert WRITTEN in script
        script = script.replace(WRITTEN, holdall.url())
        return run("bash", "-euo", "pipefail", "-c", script, cwd=tmp_path)

    return run_shell


@pytest.fixture
def run_python(holdall, run, tmp_path):
    """Runs one block of Python by itself."""

    def run_python(block: str) -> str:
        assert WRITTEN in block
        return run(sys.executable, "-B", "-c", block.replace(WRITTEN, holdall.url()), cwd=tmp_path)

    return run_python


@pytest.fixture
def aggregates(start_holdall, tmp_path):
    """A server with the configuration of the document on aggregates."""
    config = tmp_path / "holdall.toml"
    config.write_text("\n".join(examples("docs/aggregates.md", "toml")))
    return start_holdall(HOLDALL_CONFIG=str(config))


def test_the_shell_of_the_document_on_aggregates(aggregates, run, tmp_path):
    blocks = examples("docs/aggregates.md", "sh")
    script = "\n".join(blocks)
    assert WRITTEN in script
    printed = run("bash", "-euo", "pipefail", "-c", script.replace(WRITTEN, aggregates.url()), cwd=tmp_path)
    # The document says after each command what it prints, with `...` for what differs each time.
    expected = re.findall(r"^ *# ([{\[].*)$", script, re.MULTILINE)
    assert len(expected) >= 8
    for line in expected:
        parts = [re.escape(part) for part in line.split("...")]
        found = re.search(".*?".join(parts), printed)
        assert found, f"{line} was not printed, or not in this place:\n{printed}"
        printed = printed[found.end() :]


def toml(value) -> str:
    """A value of JSON as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + " }"
    return json.dumps(value)


def same(found, expected) -> bool:
    """Whether two values are the same, up to the five digits of the document."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return abs(found - expected) <= 1e-4 * abs(expected)
    return found == expected


def test_the_examples_of_all_kinds(start_holdall):
    (text,) = re.findall(r"^### Examples\n(.*?)(?=^##|\Z)", (REPOSITORY / "docs/aggregates.md").read_text(), re.M | re.S)
    rows = re.findall(r"^\| `(\{.*?\})` \| (`.*`) \| `(.*)` \|$", text, re.M)
    kinds = [json.loads(settings) for settings, _, _ in rows]
    assert {kind["kind"] for kind in kinds} == {
        *("sum", "count", "min", "max", "first", "last", "set", "hll", "topk", "bloom", "decayed_sum"),
        *("quantiles", "map", "tuple"),
    }
    holdall = start_holdall(**{f"HOLDALL_PIPELINES__P{at}": toml(kind) for at, kind in enumerate(kinds)})
    for at, (_, deltas, expected) in enumerate(rows):
        updates = [
            {"entity": "a", "at": "2026-01-31T12:00:00Z", "delta": json.loads(delta)}
            for delta in re.findall(r"`([^`]*)`", deltas)
        ]
        request = urllib.request.Request(
            holdall.url(f"/v1/aggregates/p{at}/merge"),
            data=json.dumps({"updates": updates}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["applied"] == len(updates)
        value = json.loads(get(holdall.url(f"/v1/aggregates/p{at}/a"))[0])["value"]
        expected = json.loads(expected)
        if kinds[at]["kind"] == "decayed_sum":
            # It decays until it is read, which is now.
            assert value.keys() == expected.keys() and 0 <= value["value"] < expected["value"]
        else:
            assert same(value, expected), f"{kinds[at]}: {value} instead of {expected}"


def generation(holdall, key: str) -> int:
    """The generation of a key."""
    return json.loads(get(holdall.url(f"/v1/generations/{key}"))[0])["generation"]


def test_the_shell_of_the_guide(holdall, run_shell):
    blocks = examples("docs/cache.md", "sh")
    assert len(blocks) == 4
    printed = run_shell(blocks)
    assert "<h1>Ann</h1>" in printed
    assert "\n404 stale\n" in printed.replace("}404", "}\n404")
    assert printed.count('"reason":"stale"') == 2, "one bump ended both values of the user"
    assert '"stored":["logo"]' in printed
    with urllib.request.urlopen(holdall.url("/v1/cache/pages/logo")) as logo:
        assert (logo.read(), logo.headers["Content-Type"]) == (b"\x89PNG", "image/png")


def test_the_python_of_the_guide(holdall, run_python):
    (block,) = examples("docs/cache.md", "python")
    run_python(block)
    assert generation(holdall, "user-8") == 1
    with urllib.request.urlopen(holdall.url("/v1/cache/names/user-8")) as name:
        assert name.read() == b"Bea"
    # The functions again, where making the value fails, and where the source changes meanwhile.
    functions, _ = block.split("\nusers = ")
    run_python(
        functions
        + """
import time

def fails():
    raise KeyError("no such user")

started = time.monotonic()
for _ in range(2):
    try:
        cached("names", "nobody", fails)
        raise AssertionError("it failed")
    except KeyError:
        pass
assert time.monotonic() - started < 5, "the second one waited for the fill claim of the first"

def changes():
    invalidate("changing")
    return b"old"

assert cached("names", "changing", changes) == b"old"
assert call("GET", "/cache/names/changing")[0] == 404
assert cached("names", "changing", lambda: b"new") == b"new"
assert cached("names", "changing", fails) == b"new"
H = "http://127.0.0.1:1/v1"
assert cached("names", "changing", lambda: b"without a cache") == b"without a cache"
"""
    )


def test_the_readme(holdall, run_shell, run_python):
    (shell,) = examples("README.md", "sh", "Cache")
    printed = run_shell([shell])
    assert printed.endswith("stale\n")
    (block,) = examples("README.md", "python", "Cache")
    run_python(block)
    assert (generation(holdall, "home"), generation(holdall, "start")) == (1, 1)
    # Without the bump at its end the example finds what it has put.
    lookup, _ = block.split("# When the source")
    run_python(lookup)
    run_python(lookup + "\nassert value == b'made from the source'")
    with urllib.request.urlopen(holdall.url("/v1/cache/pages/start")) as value:
        assert value.read() == b"made from the source"
