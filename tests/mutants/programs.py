"""The tests: which there are, and one run of some of them in a process of their own.

Not which mutant is on: the caller says. Invariant: when a run is over, no process of it is left, and no file.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

from build import TREE, WORK, Built, environment

# What a mutant may take before the system refuses more: some never stop.
MOST_MEMORY_BYTES = 12 << 30
MOST_FILE_BYTES = 4 << 30
FAILED = re.compile(r"^test (\S+) .*FAILED$", re.MULTILINE)
# Tests of the sources' text and of the documents: they fail on the copy, or run none of the code.
LEFT_OUT = ("house_rules::",)


@dataclass(frozen=True)
class Test:
    """A test, by its program and its full name."""

    program: str
    name: str

    @property
    def needs_redis(self) -> bool:
        """Whether it runs against a Redis."""
        return "redis" in self.name


@dataclass
class Outcome:
    """How a run ended."""

    passed: bool
    timed_out: bool
    seconds: float
    failed: list[str]


def all_tests(built: Built) -> list[Test]:
    """Lists the tests of both programs."""
    tests = []
    for program in (built.library, built.integration):
        listed = subprocess.run([program, "--list", "--format=terse"], cwd=TREE, env=environment(), check=True,
                                stdout=subprocess.PIPE, text=True).stdout
        names = [line.removesuffix(": test") for line in listed.splitlines() if line.endswith(": test")]
        tests += [Test(program, name) for name in names if not name.startswith(LEFT_OUT)]
    return tests


def run(tests: list[Test], seconds: float, **variables: str) -> Outcome:
    """Runs tests of one program, for at most so many seconds, with these variables in the environment."""
    folder = WORK / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    words = [tests[0].program, "--exact", "--test-threads=2", *(test.name for test in tests)]
    started = time.monotonic()
    # Standard output to a file: a process that outlives the tests would hold a pipe open.
    with (WORK / "output").open("w+", errors="replace") as output:
        process = subprocess.Popen(words, cwd=TREE, env=environment() | {"TMPDIR": str(folder)} | variables,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True, preexec_fn=_limit)
        try:
            process.wait(seconds)
            timed_out = False
        except subprocess.TimeoutExpired:
            timed_out = True
        took = time.monotonic() - started
        _end(process)
        output.seek(0)
        failed = FAILED.findall(output.read())
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(process.returncode == 0 and not timed_out, timed_out, took, failed)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_FILE_BYTES, MOST_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end(process: subprocess.Popen) -> None:
    """Ends the process and all that it started: they are a process group of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
