"""Builds a copy of the repository with all mutants in it, and takes out those that do not compile.

Never changes the working tree: everything is below `target/mutants/`. Invariant: what was built last has exactly the
mutants that it returns.
"""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rewrite import Mutant, Rewriter

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "mutants"
TREE = WORK / "tree"
MUTATED = ("src/engine", "src/store")
COPIED = ("Cargo.toml", "Cargo.lock", ".cargo", "README.md", "CHANGELOG.md", "Makefile", "benches", "deploy", "docs",
          "openapi", "proptest-regressions", "src", "tests")
# So many attempts: errors of types come first, those of borrows only when there are none of types.
ROUNDS = 12


@dataclass
class Built:
    """The programs of the tests, and the mutants that they have."""

    library: str
    integration: str
    mutants: list[Mutant]
    left_out: int


def environment() -> dict[str, str]:
    """The environment of all that is built and run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDALL_", "MUTANT"))}
    return kept | {"CARGO_TARGET_DIR": str(WORK / "build"), "CARGO_TERM_COLOR": "never", "CARGO_INCREMENTAL": "1"}


def build() -> Built:
    """Copies, rewrites and compiles until no mutant stands in the way.

    Raises `RuntimeError` where an error is not a mutant's.
    """
    _copy()
    without: set[int] = _known()
    for _ in range(ROUNDS):
        files = _rewrite(without)
        errors = _check()
        if not errors:
            mutants = [mutant for file in files.values() for mutant in file.mutants]
            library, integration = _programs()
            kept = [mutant for mutant in mutants if mutant.number not in without]
            return Built(library, integration, kept, len(without))
        found = set().union(*(_blamed(files, *error) for error in errors)) - without
        if not found:
            raise RuntimeError(f"the rewritten copy does not compile: {errors[0]}")
        print(f"{len(errors)} errors: {len(found)} mutants do not compile", flush=True)
        without |= found
        keys = [mutant.key for file in files.values() for mutant in file.mutants if mutant.number in without]
        (WORK / "without.json").write_text(json.dumps(keys))
    raise RuntimeError(f"the rewritten copy does not compile after {ROUNDS} rounds")


def _copy() -> None:
    """Copies what cargo and the tests read. Unchanged files keep their times, so cargo builds less."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *COPIED], cwd=ROOT, check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split("\n")
    names = {name for name in listed if name and (ROOT / name).is_file()}
    for old in TREE.rglob("*") if TREE.exists() else []:
        if old.is_file() and str(old.relative_to(TREE)) not in names:
            old.unlink()
    for name in names:
        if not name.startswith("src/"):
            _place(TREE / name, (ROOT / name).read_bytes(), (ROOT / name).stat().st_mode)


def _place(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes a file unless it has this content already."""
    if path.exists() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def _rewrite(without: set[int]) -> dict[str, Rewriter]:
    files, first = {}, 0
    for path in sorted((ROOT / "src").rglob("*")):
        if path.is_dir():
            continue
        name, data = str(path.relative_to(ROOT)), path.read_bytes()
        if name.startswith(MUTATED) and name.endswith(".rs") and not _has_tests(path):
            files[name] = Rewriter(name, data, first, without)
            first += len(files[name].mutants)
            data = files[name].text
        elif name == "src/lib.rs":
            # A mutant may compute what the compiler knows to overflow.
            data = b"#![allow(arithmetic_overflow, unconditional_panic)]\n" + data + b"pub mod mutants;\n"
        _place(TREE / name, data)
    _place(TREE / "src/mutants.rs", (Path(__file__).parent / "switch.rs").read_bytes())
    return files


def _has_tests(path: Path) -> bool:
    return path.stem.endswith("tests") or "tests" in path.parts


def _known() -> set[int]:
    """The mutants that did not compile in an earlier run, so that it takes fewer rounds."""
    saved = WORK / "without.json"
    if not saved.exists():
        return set()
    keys = set(json.loads(saved.read_text()))
    return {mutant.number for file in _rewrite(set()).values() for mutant in file.mutants if mutant.key in keys}


def _cargo(*words: str) -> tuple[list[dict], int]:
    run = subprocess.run(["cargo", *words, "--locked", "--message-format=json"], cwd=TREE, env=environment(),
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    messages = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode != 0 and not any(message.get("reason") == "compiler-message" for message in messages):
        raise RuntimeError(run.stderr[-4000:])
    return messages, run.returncode


def _check() -> list[tuple[str, list[tuple[str, int, int]]]]:
    """The errors of the library: the text of each, and its places (file, start, end)."""
    messages, code = _cargo("check", "--lib")
    errors = []
    for message in messages:
        said = message.get("message")
        if message["reason"] == "compiler-message" and said["level"] == "error" and said["spans"]:
            spans = sorted(said["spans"], key=lambda span: not span["is_primary"])
            places = [(span["file_name"], span["byte_start"], span["byte_end"]) for span in spans]
            errors.append((said["rendered"], places))
    if code != 0 and not errors:
        raise RuntimeError("cargo check fails without an error that has a place")
    return errors


def _blamed(files: dict[str, Rewriter], _text: str, places: list[tuple[str, int, int]]) -> set[int]:
    """The mutants that an error comes from: the innermost around it; else those inside of it, or in its function."""
    for name, start, end in places:
        if name not in files:
            continue
        regions = [region for region in files[name].regions if region[2] >= 0]
        around = [region for region in regions if region[0] <= start and end <= region[1]]
        if around:
            return {min(around, key=lambda region: region[1] - region[0])[2]}
    for name, start, end in places:
        if name not in files:
            continue
        inside = {region[2] for region in files[name].regions if region[2] >= 0 and start <= region[0] < end}
        if inside:
            return inside
        functions = [region for region in files[name].regions if region[2] < 0 and region[0] <= start < region[1]]
        for outer in functions:
            inside = {region[2] for region in files[name].regions
                      if region[2] >= 0 and outer[0] <= region[0] < outer[1]}
            if inside:
                return inside
    return set()


def _programs() -> tuple[str, str]:
    messages, code = _cargo("test", "--no-run", "--lib", "--test", "holdall", "--bin", "holdall")
    if code != 0:
        raise RuntimeError("the tests do not compile:\n" + "".join(
            message["message"]["rendered"] for message in messages
            if message["reason"] == "compiler-message" and message["message"]["level"] == "error"))
    programs = {message["target"]["kind"][0]: message["executable"] for message in messages
                if message["reason"] == "compiler-artifact" and message["target"]["name"] == "holdall"
                and message["profile"]["test"]}
    return programs["lib"], programs["test"]
