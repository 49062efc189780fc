"""Single-file programs with tests, in QuixBugs' layout, as a git history: one bug-fix commit each.

    python_programs/NAME.py  correct_python_programs/NAME.py  json_testcases/NAME.json
    python_testcases/test_NAME.py

The first commit holds every program as it is, broken; each further one repairs one program and
brings its tests. Mining (`mining.py`) then makes bugs of them as of any other history. The correct
programs themselves are in no commit but the one that repairs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import UserError
from selfplay.repo.sources.git import git

BROKEN, CORRECT = "python_programs", "correct_python_programs"
JSON_CASES, TESTS = "json_testcases", "python_testcases"
FROM_JSON = """\
import json
import types
from pathlib import Path

import pytest
from {broken}.{name} import {name}

FILE = Path(__file__).parent.parent / "{cases}" / "{name}.json"
CASES = [json.loads(line) for line in FILE.read_text("utf-8").split("\\n") if line.strip()]


@pytest.mark.parametrize(("given", "expected"), CASES)
def test_{name}(given, expected):
    found = {name}(*(given if isinstance(given, list) else [given]))
    assert (list(found) if isinstance(found, types.GeneratorType) else found) == expected
"""
"""The test file of a program that has cases alone: [arguments, result], one a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program: its files' texts. `dropped`: why it can be no bug, "" where it can."""

    name: str
    broken: bytes
    correct: bytes
    tests: bytes
    dropped: str = ""


def read_programs(folder: Path) -> list[Program]:
    """Every program that has a broken or a correct version; helpers (equal in both) are none.

    Raises `UserError` where this is not the layout.
    """
    for name in (BROKEN, CORRECT):
        if not (folder / name).is_dir():
            raise UserError(f"programs={folder}: has no folder {name}/ (docs/formats.md)")
    names = {path.stem for part in (BROKEN, CORRECT) for path in (folder / part).glob("*.py")}
    names -= {"__init__"} | {name for name in names if name.endswith("_test")}
    return [_program(folder, name) for name in sorted(names)]


def _program(folder: Path, name: str) -> Program:
    broken, correct = (_bytes(folder / part / f"{name}.py") for part in (BROKEN, CORRECT))
    tests = _bytes(folder / TESTS / f"test_{name}.py")
    if not tests and (folder / JSON_CASES / f"{name}.json").is_file():
        tests = FROM_JSON.format(name=name, broken=BROKEN, cases=JSON_CASES).encode()
    dropped = (
        "no_broken" if not broken
        else "no_correct" if not correct
        else "same" if broken == correct
        else "" if tests
        else "no_tests"
    )  # fmt: skip
    return Program(name=name, broken=broken, correct=correct, tests=tests, dropped=dropped)


def write_history(folder: Path, programs: list[Program], target: Path) -> None:
    """A git repository at `target`, the same commits each time; what was there is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    git("init", "-q", cwd=target)
    _write(target, _first(folder, programs))
    git("add", "-A", "-f", cwd=target)
    git("commit", "-q", "-m", "Programs as they are", cwd=target)
    for program in programs:
        if program.dropped:
            continue
        name = program.name
        files = {f"{BROKEN}/{name}.py": program.correct, f"{TESTS}/test_{name}.py": program.tests}
        _write(target, files.items())
        git("add", "-A", "-f", cwd=target)
        git("commit", "-q", "-m", f"Repair {name}", cwd=target)


def _first(folder: Path, programs: list[Program]) -> Iterator[tuple[str, bytes]]:
    """Broken programs, helpers, cases and what steers pytest; no test of a program."""
    tests = {f"test_{program.name}.py" for program in programs}
    kept = [*sorted(folder.glob("*.py")), *sorted(folder.glob("LICENSE*"))]
    for part in (BROKEN, JSON_CASES, TESTS):
        kept += sorted(path for path in (folder / part).glob("*") if path.is_file())
    for path in kept:
        odd = path.parent.name == BROKEN and path.stem.endswith("_test")
        if path.name not in tests and not odd and path.suffix not in (".pyc", ".class"):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _write(target: Path, files: Iterable[tuple[str, bytes]]) -> None:
    for name, content in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""
