"""Programs that are known by what they do (ProgramBench's kind of task): documents, commands with
what they print, a reference executable, and no source.

    NAME/reference      an executable file of any kind
    NAME/docs/          documents
    NAME/tests.jsonl    {"id", "argv", "stdin", "stdout", "exit_code", "shown"}, one command a line

Each becomes a small repository and a bug in it, like any other bug: the original has the reference
as `program`, a text that unpacks and runs it; the bug is that `program` is gone. A solver sees the
documents and, in `docs/examples.jsonl`, the commands that are `shown`; it may run the reference
(`roles/agentic/reference.py`). The tests hold what is
printed as a hash alone, so that a program which reads them while it is graded learns nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.scripts import parser_source, runner_script
from selfplay.errors import UserError
from selfplay.files import encode_json
from selfplay.repo.prepare import PreparedRepo
from selfplay.types import BugArtifact, FileChange

PROGRAM, EXAMPLES, CASES = "program", "docs/examples.jsonl", "tests.jsonl"
BEHAVIOUR, DOCUMENTS = "tests/test_behaviour.py", "tests/test_documents.py"
MAX_BYTES = 4 << 20
"""Of a reference: as text it must fit into a patch."""
UNPACK = """#!/bin/sh
# The reference executable, packed. Nobody who is asked to rebuild it has this file.
place=$(mktemp -d) && sed '1,/^PACKED$/d' "$0" | base64 -d > "$place/program" || exit 125
chmod +x "$place/program" && exec "$place/program" "$@"
PACKED
"""
HEAD = '''"""What the program does. Output is compared by its hash."""

import hashlib
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "program"


def check(argv, stdin, digest, exit_code):
    words = [str(PROGRAM), *argv]
    given = stdin.encode("utf-8", "surrogateescape")
    done = subprocess.run(words, input=given, capture_output=True, timeout=20)
    assert done.returncode == exit_code
    assert hashlib.sha256(done.stdout).hexdigest() == digest
'''
OF_DOCUMENTS = """from pathlib import Path


def test_documents_are_there():
    assert any((Path(__file__).resolve().parent.parent / "docs").iterdir())
"""
STATEMENT = """The executable file `program` is gone, and there is no source of it. Write it
anew, in the root of the repository and in any language that runs here, so that it does what docs/
says: commands, options, standard output and exit codes, to the byte. docs/examples.jsonl holds some
commands with what they print; it is tested with these and with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One command: standard input and what it must give. `shown`: solvers are told."""

    name: str
    argv: tuple[str, ...]
    stdin: str
    stdout: str
    exit_code: int
    shown: bool


def task_folders(folder: Path) -> list[Path]:
    """The folders of such tasks: this one, or those directly below it."""
    return sorted(f for f in [folder, *folder.glob("*/")] if (f / CASES).is_file())


def read_cases(folder: Path) -> list[Case]:
    """The commands of a task. Raises `UserError` that names file and line."""
    cases: dict[str, Case] = {}
    ids: set[str] = set()
    file = folder / CASES
    # A text may hold what `splitlines` takes for the end of a line.
    for number, text in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            case = _case(line, number)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}:{number}: no command with its output ({error!r})") from None
        own = str(line.get("id", number))
        if own in ids:
            raise UserError(f"{file}:{number}: id {own!r} was there before")
        ids.add(own)
        if case.name in cases:  # "-a" and "--a"
            case = replace(case, name=f"{case.name}_of_line_{number}")
        cases[case.name] = case
    if not cases:
        raise UserError(f"{file}: holds no command")
    return list(cases.values())


def _case(line: Mapping[str, Any], number: int) -> Case:
    argv, stdin, stdout = line["argv"], line.get("stdin", ""), line["stdout"]
    if not (isinstance(argv, list) and all(isinstance(w, str) for w in [*argv, stdin, stdout])):
        raise TypeError("argv must be a list of texts, stdin and stdout texts")
    for word in [*argv, stdin, stdout]:
        _bytes(word)
    if any("\0" in word for word in argv):
        raise ValueError("a word of argv holds a NUL")
    name = re.sub(r"\W+", "_", str(line.get("id", number)), flags=re.ASCII).strip("_").lower()
    return Case(
        name=name or str(number),
        argv=tuple(argv),
        stdin=stdin,
        stdout=stdout,
        exit_code=int(line["exit_code"]),
        shown=bool(line.get("shown", True)),
    )


def _bytes(text: str) -> bytes:
    """What a text stands for; what is no UTF-8 stands as surrogateescape in it."""
    return text.encode("utf-8", "surrogateescape")


def write_repository(folder: Path, target: Path) -> list[Case]:
    """The small repository of a task at `target`, anew. Raises `UserError`."""
    cases = read_cases(folder)
    reference = folder / "reference"
    if not reference.is_file() or reference.stat().st_size > MAX_BYTES:
        raise UserError(f"{reference}: must be a file of at most {MAX_BYTES} bytes")
    if not (folder / "docs").is_dir():
        raise UserError(f"{folder}: has no folder docs/")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "docs", target / "docs")
    (target / "tests").mkdir()
    packed = base64.encodebytes(reference.read_bytes()).decode()
    (target / PROGRAM).write_text(UNPACK + packed)
    (target / PROGRAM).chmod(0o755)
    shown = [case for case in cases if case.shown]
    (target / EXAMPLES).write_bytes(b"".join(encode_json(_told(case)) + b"\n" for case in shown))
    (target / DOCUMENTS).write_text(OF_DOCUMENTS)
    (target / BEHAVIOUR).write_bytes((HEAD + "".join(map(_test, cases))).encode())
    return cases


def _told(case: Case) -> dict[str, Any]:
    told = {"argv": list(case.argv), "stdin": case.stdin}
    return {**told, "stdout": case.stdout, "exit_code": case.exit_code}


def _test(case: Case) -> str:
    digest = hashlib.sha256(_bytes(case.stdout)).hexdigest()
    words = f"{list(case.argv)!r}, {case.stdin!r}, {digest!r}, {case.exit_code}"
    return f"\n\ndef test_{case.name}():\n    check({words})\n"


def packed(tree: Path) -> bytes | None:
    """The reference executable in the original tree of such a task; None where it holds none."""
    try:
        text = (tree / PROGRAM).read_bytes()
    except OSError:
        return None
    head, mark, content = text.partition(b"\nPACKED\n")
    return base64.decodebytes(content) if mark and head.startswith(b"#!") else None


def artifact_of(prepared: PreparedRepo) -> BugArtifact:
    """The bug: `program` is gone."""
    tree = prepared.environment.tree
    tests = [test for test, info in prepared.profile.tests.items() if info.file == BEHAVIOUR]
    files = (BEHAVIOUR, DOCUMENTS)
    return BugArtifact(
        test_script=runner_script("pytest", files),
        test_files=files,
        test_parser=parser_source("pytest"),
        bug_patch=make_patch(tree, {}, {PROGRAM: FileChange(content=None)}),
        weakening_patch=make_patch(tree, {}, weakening_layer(tree, tests)),
        meta={"strategy": "rebuild", "level": "program", "path": PROGRAM, "repo": prepared.name},
    )
