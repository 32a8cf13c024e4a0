"""The series that are pushed: text format, about 86 bytes a line.

Files of one size hold the same series; `step` gives them other values, so that a push of known series
changes every one of them. Each run pushes the same bytes.
"""

import random
from collections.abc import Iterable
from pathlib import Path

FAMILY_SIZE = 10_000
CODES = ("200", "204", "301", "404", "500")
JOBS = ("api", "web", "etl", "cron")


def write_exposition(folder: Path, series: int, step: int) -> Path:
    """Writes the first `series` series once and returns the file; a file that exists is kept."""
    return write_once(folder / f"series-{series}-{step}.prom", range(series), step)


def write_scattered(folder: Path, series: int, chosen: int, step: int) -> Path:
    """As `write_exposition`, but `chosen` series of all `series`, at random places."""
    path = folder / f"scattered-{chosen}-of-{series}-{step}.prom"
    return write_once(path, sorted(random.Random(8720).sample(range(series), chosen)), step)


def write_others(folder: Path, series: int) -> Path:
    """Writes series that no other file has; the name of all is `bench_other_total`."""
    path = folder / f"others-{series}.prom"
    lines = (line("bench_other_total", member, 1) for member in range(series))
    path.write_text("# TYPE bench_other_total counter\n" + "".join(lines))
    return path


def write_once(path: Path, numbers: Iterable[int], step: int) -> Path:
    """Writes the series with these ascending numbers, in their families."""
    if path.exists():
        return path
    unfinished = path.with_suffix(".part")
    last = None
    with unfinished.open("w", encoding="ascii") as out:
        for number in numbers:
            family, member = divmod(number, FAMILY_SIZE)
            name = f"bench_{family:03d}_total"
            if family != last:
                out.write(f"# HELP {name} Requests that were served.\n# TYPE {name} counter\n")
                last = family
            out.write(line(name, member, step))
    unfinished.rename(path)
    return path


def line(name: str, member: int, step: int) -> str:
    """One sample. `path` alone makes the series unique, as some peers replace `job`."""
    return (
        f'{name}{{code="{CODES[member % 5]}",instance="10.0.{member // 250}.{member % 250}:9100",'
        f'job="{JOBS[member % 4]}",path="/v1/{member:05d}"}} {member * step + 7}\n'
    )
