"""Which test reaches which mutants: one run of each test, in a process of its own.

Kept in `target/mutants/reach.jsonl`, so that an interrupted run goes on. Invariant: a test that is listed passes
without a mutant; who does not is named, and not used.
"""

import array
import json
from collections import defaultdict
from dataclasses import dataclass, field

from build import WORK
from programs import Test, run

# A test that takes longer is left out: it would be run for thousands of mutants.
MOST_SECONDS = 60.0


@dataclass
class Reach:
    """By mutant, the tests that reach it; by test, how long it takes."""

    tests: dict[int, list[Test]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[Test, float] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


def record(tests: list[Test], digest: str) -> Reach:
    """Runs every test that was not run yet on these sources."""
    reach, path = Reach(), WORK / "reach.jsonl"
    known = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        if entry["digest"] == digest:
            known[entry["program"], entry["name"]] = entry
    with path.open("a" if known else "w") as log:
        for nth, test in enumerate(tests):
            entry = known.get((test.program, test.name))
            if entry is None:
                entry = {"digest": digest, "program": test.program, "name": test.name} | _record(test)
                log.write(json.dumps(entry) + "\n")
                log.flush()
                if nth % 50 == 0:
                    print(f"{nth} of {len(tests)} tests recorded", flush=True)
            if entry["passed"]:
                reach.seconds[test] = entry["seconds"]
                for number in entry["mutants"]:
                    reach.tests[number].append(test)
            else:
                reach.unused.append(test.name)
    return reach


def _record(test: Test) -> dict:
    path = WORK / "recorded"
    path.unlink(missing_ok=True)
    outcome = run([test], MOST_SECONDS, MUTANT="record", MUTANT_RECORD=str(path))
    if not outcome.passed and not outcome.timed_out:
        # Recording takes memory and a file, which a few tests count.
        outcome = run([test], MOST_SECONDS)
    numbers = array.array("I")
    if path.exists():
        data = path.read_bytes()
        numbers.frombytes(data[: len(data) // 4 * 4])
    return {"passed": outcome.passed, "seconds": round(outcome.seconds, 3), "mutants": sorted(set(numbers))}
