"""Output of real exporters, and an independent reading of the text format to judge holdall by.

Only what the files hold is read: no timestamps, no exemplars. A line that is not understood is an
error, so that nothing is compared with less than was pushed.
"""

import re
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from processes import Server, wait_until

FILES = sorted((Path(__file__).parents[1] / "data" / "expositions").glob("*.prom"))
TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')
_ESCAPE = re.compile(r"\\(.)")

Series = frozenset[tuple[str, str]]


@dataclass
class Exposition:
    """Samples by their labels (the name among them), and what is said of the families."""

    samples: dict[Series, float] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    helps: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


def read(text: str) -> Exposition:
    """Reads a page; a series or a family that is there twice is an error."""
    page = Exposition()
    for line in text.splitlines():
        if line.startswith(("# TYPE ", "# HELP ", "# UNIT ")):
            _, word, name, rest = (line + " ").split(" ", 3)
            if word != "UNIT":
                known = page.types if word == "TYPE" else page.helps
                assert name not in known, f"{name} has two lines of {word}"
                known[name] = _unescape(rest[:-1])
        elif line and not line.startswith("#"):
            name, labels, value = _SAMPLE.fullmatch(line).groups()
            series = _series(name, labels or "")
            assert series not in page.samples, f"{line} is there twice"
            page.samples[series] = float(value)
            page.order.append(name)
    return page


def _series(name: str, labels: str) -> Series:
    found = _LABEL.findall(labels)
    assert "".join(f'{key}="{value}"' for key, value in found) == _LABEL.sub(
        lambda match: match[0].rstrip(","), labels
    ), labels
    pairs = {(key, _unescape(value)) for key, value in found}
    # An empty label is an absent one.
    return frozenset({("__name__", name)} | {pair for pair in pairs if pair[1]})


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def push(holdall: Server, body: bytes, content_type: str = TEXT) -> None:
    """Pushes a page as the leader's scrape."""
    request = urllib.request.Request(
        holdall.url("/v1/series?role=leader&source=leader_scrape"),
        data=body,
        headers={"Content-Type": content_type},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def get(url: str, **headers: str) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a GET."""
    wanted = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=wanted), timeout=30) as response:
        return response.read(), {name.lower(): value for name, value in response.headers.items()}


def wait_for(holdall: Server, series: Series) -> None:
    """Waits until /metrics shows the series."""
    wait_until(
        lambda: series in read(get(holdall.url("/metrics"))[0].decode()).samples,
        f"/metrics shows {dict(series)}",
        pause=0.1,
    )
