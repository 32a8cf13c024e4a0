"""`make mutants`: changes the store and the engine in thousands of places, one at a time, and names each change that
no test notices.

All mutants are in one build; the variable MUTANT switches one on. Invariant: a mutant counts as caught only when a
test fails twice with it, or runs five times as long as without and ten seconds more.
"""

import argparse
import hashlib
import json
import random
import sys
import time

from build import ROOT, WORK, build
from programs import Test, all_tests, run
from reach import Reach, record
from rewrite import Mutant

# So long the tests of one mutant may take, by their own times; then it counts as survivor of those that were run.
MOST_SECONDS = 40.0
FIRST_SECONDS = 0.3


def main() -> None:
    """Builds, records, tries, and prints the survivors."""
    words = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    words.add_argument("prefix", nargs="*", default=["src/engine", "src/store/embedded", "src/store/scan"],
                       help="paths of the mutants, such as src/store/redis; Redis is used where they name it")
    words.add_argument("--again", action="store_true", help="only the survivors of the last run")
    words.add_argument("--at-most", type=int, help="so many mutants")
    words.add_argument("--minutes", type=float, default=float("inf"), help="starts no mutant after so many minutes")
    chosen = words.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    built = build()
    print(f"{len(built.mutants)} mutants; {built.left_out} more do not compile", flush=True)
    digest = _digest()
    prefixes = tuple(chosen.prefix)
    with_redis = any("redis" in prefix for prefix in prefixes)
    tests = [test for test in all_tests(built) if with_redis or not test.needs_redis]
    reach = record(tests, digest)
    for name in reach.unused:
        print(f"not used, as it fails or takes too long without a mutant: {name}")
    mutants = [mutant for mutant in _spread(built.mutants) if mutant.file.startswith(prefixes)]
    _try_all(mutants, reach, digest, chosen)


def _digest() -> str:
    """Names the sources and tests: results of others do not count."""
    hashed = hashlib.sha256()
    for folder in ("src", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".rs", ".lua", ".toml") and path.is_file():
                hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def _spread(mutants: list[Mutant]) -> list[Mutant]:
    """The mutants in an order of which each beginning is a sample spread over all files. Always the same order."""
    by_file: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_file.setdefault(mutant.file, []).append(mutant)
    placed = []
    for file, group in by_file.items():
        chance = random.Random(file)
        chance.shuffle(group)
        placed += [((nth + chance.random()) / len(group), mutant) for nth, mutant in enumerate(group)]
    return [mutant for _, mutant in sorted(placed, key=lambda pair: (pair[0], pair[1].number))]


def _try_all(mutants: list[Mutant], reach: Reach, digest: str, chosen: argparse.Namespace) -> None:
    path = WORK / "results.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if chosen.again:
        last = {entry["key"]: entry["outcome"] for entry in entries}
        mutants = [mutant for mutant in mutants if last.get(mutant.key) in ("survived", "not reached")]
    done = {entry["key"]: entry for entry in entries if entry["digest"] == digest}
    mutants, started, tried = mutants[: chosen.at_most], time.monotonic(), []
    with path.open("a") as log:
        for nth, mutant in enumerate(mutants):
            entry = done.get(mutant.key)
            if entry is None:
                if time.monotonic() - started > chosen.minutes * 60:
                    break
                entry = vars(mutant) | {"digest": digest} | _try(mutant, reach)
                log.write(json.dumps(entry) + "\n")
                log.flush()
                if entry["outcome"] != "caught":
                    print(f"{nth} {_described(entry)}", flush=True)
            tried.append(entry)
    _summarize(tried, len(mutants))


def _try(mutant: Mutant, reach: Reach) -> dict:
    """Runs the tests that reach the mutant, quickest first, until one fails."""
    tests = sorted(reach.tests[mutant.number], key=lambda test: reach.seconds[test])
    if not tests:
        return {"outcome": "not reached"}
    spent, ran, size = 0.0, 0, FIRST_SECONDS
    while tests and spent < MOST_SECONDS:
        batch = _batch(tests, reach, size)
        tests = [test for test in tests if test not in batch]
        expected = sum(reach.seconds[test] for test in batch)
        if by := _failing(batch, mutant, reach):
            return {"outcome": "caught", "by": by}
        spent, ran, size = spent + expected, ran + len(batch), size * 2
    return {"outcome": "survived", "ran": ran, "of": ran + len(tests)}


def _batch(tests: list[Test], reach: Reach, seconds: float) -> set[Test]:
    """The next tests of one program that take so many seconds together; at least one."""
    batch, total = [], 0.0
    for test in tests:
        if test.program == tests[0].program and (not batch or total + reach.seconds[test] <= seconds):
            batch.append(test)
            total += reach.seconds[test]
    return set(batch)


def _failing(batch: set[Test], mutant: Mutant, reach: Reach) -> str | None:
    """Returns the name of a test that fails with the mutant, and once more."""
    ordered = sorted(batch, key=lambda test: test.name)
    limit = 5 * sum(reach.seconds[test] for test in ordered) + 10
    outcome = run(ordered, limit, MUTANT=str(mutant.number))
    if outcome.passed:
        return None
    if outcome.timed_out:
        return "time-out"
    failed = [test for test in ordered if test.name in outcome.failed]
    if not failed:
        # The process itself ended.
        return "crash"
    for test in failed[:3]:
        if not run([test], 5 * reach.seconds[test] + 10, MUTANT=str(mutant.number)).passed:
            return test.name
    return None


def _described(entry: dict) -> str:
    ran = f" ({entry['ran']} of {entry['of']} tests)" if "ran" in entry else ""
    return f"{entry['outcome']}: {entry['file']}:{entry['line']} {entry['function']}: {entry['what']}{ran}"


def _summarize(tried: list[dict], wanted: int) -> None:
    lines = sorted(_described(entry) for entry in tried if entry["outcome"] != "caught")
    counts = {outcome: sum(entry["outcome"] == outcome for entry in tried)
              for outcome in ("caught", "survived", "not reached")}
    text = f"{len(tried)} of {wanted} mutants tried: " + ", ".join(f"{n} {what}" for what, n in counts.items())
    (WORK / "survivors.txt").write_text("\n".join([text, *lines]) + "\n")
    print("\n".join([*lines, text]))


if __name__ == "__main__":
    sys.exit(main())
