#!/usr/bin/env python3
"""Measures holdall beside its peers in one run on one machine, and prints the ratios as a table.

Started by `make bench`. Ends with 1 when a promise is missed. Results depend on the machine and on
what else it does; ratios are what counts, and only ratios from the same run can be compared.
"""

import argparse
import functools
import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# The tests start their servers with the same module.
sys.path.insert(0, str(REPOSITORY / "tests" / "e2e"))

import cache_rows  # noqa: E402
import rows  # noqa: E402
from processes import Failed  # noqa: E402
from servers import Fleet  # noqa: E402

FOLDER = REPOSITORY / "target" / "bench"


def main() -> int:
    """Runs the chosen groups and prints the table."""
    arguments = parse_arguments()
    # The servers' folders are on the disk of the repository: /tmp may be in memory.
    running = FOLDER / "running"
    shutil.rmtree(running, ignore_errors=True)
    running.mkdir(parents=True)
    table = []
    with Fleet(str(Path(arguments.holdall).resolve()), running) as fleet:
        for name, group in groups(arguments).items():
            if arguments.only and name not in arguments.only:
                continue
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            table += group(fleet, FOLDER)
    text = markdown(table)
    print(text)
    (FOLDER / "peers.md").write_text(text + "\n")
    return 1 if any(row.passed is False for row in table) else 0


def groups(arguments) -> dict:
    """What there is to measure, in the order in which it is measured."""
    many, few, rounds = arguments.series, arguments.series // 10, arguments.rounds
    group = lambda function, series, times: functools.partial(function, series=series, rounds=times)
    return {
        "known-few": group(rows.known_pushes, few, rounds + 2),
        "known-many": group(rows.known_pushes, many, rounds),
        "new": group(rows.new_pushes, many, rounds),
        "single": group(rows.single_pushes, many, rounds),
        "scrapes": group(rows.scrapes, many, rounds),
        "refreshes": group(rows.refreshes, many, rounds),
        "starts": group(rows.starts, many, rounds),
        "coordination": functools.partial(rows.coordination, rounds=rounds),
        "cache": functools.partial(cache_rows.cache, rounds=rounds),
    }


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holdall", required=True, help="the binary to measure")
    parser.add_argument("--series", type=int, default=1_000_000, help="how many are many")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts")
    parser.add_argument("--only", nargs="*", help="names of groups to measure, instead of all")
    return parser.parse_args()


def markdown(table) -> str:
    """The rows as a table that is also readable as it is."""
    head = ["work", "holdall", "peer", "ratio", "promised", "kept"]
    kept = {True: "yes", False: "NO", None: ""}
    cells = [
        [
            *(row.work, row.ours, row.peer),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            *(row.target, kept[row.passed]),
        ]
        for row in table
    ]
    widths = [max(len(line[at]) for line in [head, *cells]) for at in range(len(head))]
    show = lambda line: "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |"
    return "\n".join([show(head), show(["-" * width for width in widths]), *map(show, cells)])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as why:
        sys.exit(f"the measurement failed: {why}")
