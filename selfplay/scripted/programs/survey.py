"""Looks for a change of the code that the tests notice, or for one that makes them pass.

    python survey.py plant|remove|undo|mend SCRIPT PARSER SOURCE...

SCRIPT is run in the working directory, PARSER reads its output. Each candidate is written, tried
and taken back. The answer is one JSON object on the last line: path, search, replace and the failed
tests; for `undo` the file of a patch to be applied in reverse; {} when nothing was found.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SWAPS = [
    (r"(?<![<>=!-])<=(?![=>])", "<"),
    (r"(?<![<>=!-])>=(?!=)", ">"),
    (r"(?<![<>=!-])<(?![<>=])(?= )", "<="),
    (r"(?<![<>=!-])>(?![<>=])(?= )", ">="),
    (r"==", "!="),
    (r"!=", "=="),
    (r"\band\b", "or"),
    (r"\bor\b", "and"),
    (r"&&", "||"),
    (r"\|\|", "&&"),
    (r"\+ 1\b", "- 1"),
    (r"- 1\b", "+ 1"),
    (r"\bTrue\b", "False"),
    (r"\bFalse\b", "True"),
    (r" not in ", " in "),
    (r"(?<!not) in (?=\w+[:) ]*(?:$|and|or))", " not in "),
    (r" is not ", " is "),
    (r" is (?!not)", " is not "),
]
MAX_RUNS, MAX_TRACED_RUNS, MAX_UNDONE = 60, 18, 15
TRACE = """
import json, sys, pytest
lines = set()
def local(frame, event, arg):
    lines.add((frame.f_code.co_filename, frame.f_lineno))
    return local
def trace(frame, event, arg):
    return local if frame.f_code.co_filename in wanted else None
wanted = set(json.loads(sys.argv[1]))
sys.settrace(trace)
pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", *sys.argv[2:]])
sys.settrace(None)
sys.stderr.write(json.dumps(sorted(lines)))
"""
Candidate = tuple[str, int, int, list[str]]
"""path, first and last line (from 0, last exclusive), the lines that replace them"""


def run_tests(script: str, parser: str) -> dict[str, str]:
    """The table of a run; {} when there is none."""
    try:
        done = subprocess.run(
            ["bash", script], capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL
        )
        said = subprocess.run(
            [sys.executable, parser],
            input=done.stdout + done.stderr,
            capture_output=True,
            timeout=20,
            check=False,
        )
        table: dict[str, str] = json.loads(said.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return table


def executed(sources: list[str], tests: list[str]) -> set[tuple[str, int]] | None:
    """(path, line from 0) of the sources that the tests run; None where that cannot be told."""
    python = {str(Path(path).resolve()): path for path in sources if path.endswith(".py")}
    if not python or not tests:
        return None
    done = subprocess.run(
        [sys.executable, "-c", TRACE, json.dumps(list(python)), *tests],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    try:
        lines = json.loads(done.stderr.splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return {(python[path], number - 1) for path, number in lines}


def flips(path: str, lines: list[str]) -> Iterator[Candidate]:
    """One token of one line swapped for its opposite."""
    in_pod = False
    for i, line in enumerate(lines):
        in_pod = line.startswith("=") if not in_pod else not line.startswith("=cut")
        if in_pod or line.lstrip().startswith(("#", '"""', "use ", "import ", "from ", "def ")):
            continue
        for pattern, other in SWAPS:
            for match in re.finditer(pattern, line):
                yield path, i, i + 1, [line[: match.start()] + other + line[match.end() :]]


def removals(path: str, lines: list[str]) -> Iterator[Candidate]:
    """A whole `if` without an `else` taken out of a function."""
    for function in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(function, ast.FunctionDef) and len(function.body) > 1:
            for node in function.body:
                if isinstance(node, ast.If) and not node.orelse and node.end_lineno:
                    yield path, node.lineno - 1, node.end_lineno, []


def undone(sources: list[str]) -> Iterator[str]:
    """Patches of one hunk each, of past changes of the sources, the newest first."""
    log = subprocess.run(
        ["git", "log", "--format=%h", "-n", "8", "--", *sources], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    for commit in log.stdout.split()[:-1]:
        diff = subprocess.run(
            ["git", "show", "--format=", "-U2", commit, "--", *sources],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        for file in re.split(r"(?m)^(?=diff --git )", diff):
            head, *hunks = re.split(r"(?m)^(?=@@ )", file)
            yield from (head + hunk for hunk in hunks if "new file" not in head)


def search_text(lines: list[str], first: int, last: int) -> tuple[int, int]:
    """Lines around a place until they stand only once in the file."""
    text = "\n".join(lines)
    while text.count("\n".join(lines[first:last])) > 1:
        first, last = max(0, first - 1), min(len(lines), last + 1)
    return first, last


def main(mode: str, script: str, parser: str, sources: list[str]) -> dict[str, object]:
    """The first candidate that does what is wanted."""
    before = run_tests(script, parser)
    failing = [test for test, status in before.items() if status == "failed"]
    if mode == "undo":
        return undo(script, parser, sources)
    tests = failing or list(before)
    targets = [t for t in tests if ".py::" in t] if mode == "mend" else []
    if mode != "mend":
        targets = sorted({test.split("::")[0] for test in tests if ".py::" in test})
    lines_run = executed(sources, targets)
    num_runs, max_runs = 0, MAX_RUNS if lines_run is None else MAX_TRACED_RUNS
    for path in sources:
        original = Path(path).read_text(encoding="utf-8")
        lines = original.split("\n")
        make = removals if mode == "remove" and path.endswith(".py") else flips
        for _, first, last, new in make(path, lines):
            if lines_run is not None and not any(
                (path, i) in lines_run for i in range(first, last)
            ):
                continue
            if num_runs == max_runs:
                return {}
            num_runs += 1
            Path(path).write_text("\n".join([*lines[:first], *new, *lines[last:]]), "utf-8")
            table = run_tests(script, parser)
            Path(path).write_text(original, encoding="utf-8")
            if fits(mode, before, table):
                top, bottom = search_text(lines, first, last)
                return {
                    "path": path,
                    "search": "\n".join(lines[top:bottom]) + "\n",
                    "replace": "".join(
                        f"{line}\n" for line in [*lines[top:first], *new, *lines[last:bottom]]
                    ),
                    "failed": [test for test, status in table.items() if status == "failed"],
                }
    return {}


def fits(mode: str, before: dict[str, str], table: dict[str, str]) -> bool:
    """Mended: all pass. Planted: some fail, most do not."""
    passed = [test for test, status in table.items() if status == "passed"]
    if mode == "mend":
        return len(passed) == len(before) > 0 and set(before) == set(passed)
    failed = len(table) - len(passed)
    return 0 < failed <= max(1, len(before) // 2) and set(table) == set(before)


def undo(script: str, parser: str, sources: list[str]) -> dict[str, object]:
    """The first hunk of the past whose reversal the tests notice."""
    before = run_tests(script, parser)
    place = Path("/tmp/hunk.diff")
    num_runs = 0
    for patch in undone(sources):
        place.write_text(patch, encoding="utf-8")
        apply = ["git", "apply", "--recount", "-C1", str(place)]
        if subprocess.run([*apply, "-R"], capture_output=True, check=False).returncode:
            continue
        num_runs += 1
        table = run_tests(script, parser)
        subprocess.run(apply, capture_output=True, check=True)
        if fits("undo", before, table):
            failed = [test for test, status in table.items() if status == "failed"]
            return {"patch": str(place), "failed": failed}
        if num_runs == MAX_UNDONE:
            break
    return {}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])) + "\n")
