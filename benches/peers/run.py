#!/usr/bin/env python3
"""Measures holdall beside its peers in one run on one machine, and prints a table of ratios.

Started by `make bench`. Each row is printed as it is measured; ends with 1 when a promise is missed or a group fails.
Figures depend on the machine and on its load: only ratios count, and only those of the same run.
With `--before PATH` another holdall is measured in the same rounds, and each row also says how many
times better the measured one is: the median of the rounds, the smallest and the largest.
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
import coordination_rows  # noqa: E402
import series_rows  # noqa: E402
from processes import Failed, missing_programs  # noqa: E402
from servers import Fleet  # noqa: E402
from table import Table  # noqa: E402

FOLDER = REPOSITORY / "target" / "bench"
# Every program that a group starts, with its Debian package.
PACKAGES = {
    "curl": "curl",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "prometheus-pushgateway": "prometheus-pushgateway",
    "victoria-metrics": "victoria-metrics",
    "nginx": "nginx-light",
    "redis-server": "redis-server",
    "webdis": "webdis",
    "etcd": "etcd-server",
}
GATEWAY, VICTORIA = "prometheus-pushgateway", "victoria-metrics"


def main() -> int:
    """Measures the chosen groups."""
    arguments = parse_arguments()
    binaries = [str(Path(path).resolve(strict=True)) for path in (arguments.holdall, arguments.before) if path]
    every = groups(arguments)
    chosen = arguments.only or list(every)
    if unknown := set(chosen) - set(every):
        raise Failed(f"no such group: {' '.join(sorted(unknown))}; there are {' '.join(every)}")
    needed = {name: PACKAGES[name] for group in chosen for name in every[group][1]}
    missing = missing_programs(needed)
    if missing:
        raise Failed(f"programs are missing: apt-get install {' '.join(missing)}")
    # The servers' folders are on the disk of the repository: /tmp may be in memory.
    running = FOLDER / "running"
    shutil.rmtree(running, ignore_errors=True)
    running.mkdir(parents=True)
    table = Table(compares=arguments.before is not None)
    with Fleet(binaries, running) as fleet:
        failed = [name for name in chosen if not measure(every[name][0], fleet, table)]
    (FOLDER / "peers.md").write_text("\n".join(table.lines) + "\n")
    return 1 if failed or any(row.passed is False for row in table.rows) else 0


def measure(group, fleet: Fleet, table: Table) -> bool:
    """Measures one group; a failure is printed, and the other groups are still measured."""
    try:
        for row in group(fleet, FOLDER):
            table.add(row)
    except Failed as why:
        print(f"the measurement failed: {why}", file=sys.stderr, flush=True)
        fleet.stop_all()
        return False
    return True


def groups(arguments) -> dict:
    """What there is to measure, in the order of measuring, with the programs that each group starts."""
    many, few, rounds = arguments.series, arguments.series // 10, arguments.rounds
    group = lambda function, **options: functools.partial(function, **{"rounds": rounds} | options)
    return {
        "known-few": (
            group(series_rows.known_pushes, series=few, rounds=rounds + 2),
            ["curl", GATEWAY, VICTORIA],
        ),
        "known-many": (group(series_rows.known_pushes, series=many), ["curl", GATEWAY, VICTORIA]),
        "new": (group(series_rows.new_pushes, series=many), ["curl", GATEWAY, VICTORIA]),
        "single": (group(series_rows.single_pushes, series=many), ["curl", "wrk"]),
        "budgets": (group(series_rows.budgets, series=few), ["curl", "redis-server"]),
        "scrapes": (group(series_rows.scrapes, series=many), ["curl", GATEWAY, "nginx"]),
        "refreshes": (group(series_rows.refreshes, series=many), ["curl"]),
        "starts": (group(series_rows.starts, series=many), ["curl"]),
        "coordination": (
            group(coordination_rows.coordination),
            ["wrk", "h2load", "redis-server", "webdis", "etcd"],
        ),
        "cache": (group(cache_rows.cache), ["wrk", "redis-server", "webdis", "etcd"]),
    }


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holdall", required=True, help="the binary to measure")
    parser.add_argument("--before", help="a binary to compare it with, in the same rounds")
    parser.add_argument("--series", type=int, default=1_000_000, help="how many are many")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions, of which the median counts")
    parser.add_argument("--only", nargs="+", help="names of groups to measure, instead of all")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as why:
        sys.exit(f"the measurement failed: {why}")
