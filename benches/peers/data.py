"""The series that are pushed: text format, about 86 bytes a line.

Two files per size hold the same series with other values, so that a push of known series changes
every one of them. Not random: each run pushes the same bytes.
"""

from pathlib import Path

FAMILY_SIZE = 10_000
CODES = ("200", "204", "301", "404", "500")
JOBS = ("api", "web", "etl", "cron")


def write_exposition(folder: Path, series: int, variant: str) -> Path:
    """Writes `series` series once and returns the file; a file that is there is kept."""
    path = folder / f"series-{series}-{variant}.prom"
    if path.exists():
        return path
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", encoding="ascii") as out:
        for number in range(series):
            family, member = divmod(number, FAMILY_SIZE)
            if member == 0:
                name = f"bench_{family:03d}_total"
                out.write(f"# HELP {name} Requests that were served.\n# TYPE {name} counter\n")
            out.write(line(name, member, 1 if variant == "a" else 2))
    unfinished.rename(path)
    return path


def line(name: str, member: int, step: int) -> str:
    """One sample. `path` alone makes the series unique, as some peers replace `job`."""
    return (
        f'{name}{{code="{CODES[member % 5]}",instance="10.0.{member // 250}.{member % 250}:9100",'
        f'job="{JOBS[member % 4]}",path="/v1/{member:05d}"}} {member * step + 7}\n'
    )
