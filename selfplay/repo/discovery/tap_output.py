"""Reads `prove --verbose --merge --normalize` on stdin, prints {"file::name": "passed"|"failed"}.

A pass counts where the file's numbering, its plan, prove's closing report and its totals all agree;
any doubt about a file fails all of its tests and the file itself (an entry without a name). Skipped
and TODO tests are left out, indented subtests belong to the test that closes them.
A program of its own: the harness also writes it into artifacts.
"""

import json
import re
import sys

_HEADER = re.compile(r"(\S+) \.{2,} ?(skipped: .*|skipped)?$")
_TEST = re.compile(r"(not )?ok (\d+)(?: (?:- )?(.*))?$")
_PLAN = re.compile(r"1\.\.(\d+)(?: .*)?$")
_TOTALS = re.compile(r"Files=(\d+), Tests=(\d+), ")
_RESULT = re.compile(r"Result: (PASS|FAIL|NOTESTS)$")
_ENTRY = re.compile(r"(\S+) +\(Wstat: (\d+)(?: \(.*\))? +Tests: (\d+) +Failed: (\d+)\)$")
_DIRECTIVE = re.compile(r"(?:^|\s|(?<!\\))#\s*(TODO|SKIP)", re.IGNORECASE)
_TODO = re.compile(r"(?<!\\)#\s*TODO\b", re.IGNORECASE)


def parse(text: str) -> dict[str, str]:
    """{file::name: status}; empty when prove did not reach its closing lines, or was told to."""
    lines = text.replace("\r\n", "\n").rstrip().split("\n")
    totals = _TOTALS.match(lines[-2]) if len(lines) > 1 else None
    if not totals or not _RESULT.match(lines[-1]) or any(_bails_out(line) for line in lines):
        return {}
    report_at = max((i for i, ln in enumerate(lines) if ln == "Test Summary Report"), default=-1)
    entries = _entries(lines[report_at + 1 :] if report_at >= 0 else [])
    sections = _sections(lines[: report_at if report_at >= 0 else len(lines) - 2])
    files = [name for name, _ in sections]
    table: dict[str, str] = {}
    num_tests = 0
    for name, body in sections:
        tests = [m for line in body if (m := _TEST.match(line))]
        num_tests += len(tests)
        table.update(_read_file(name, body, tests, entries.get(name)))
    agrees = len(files) == len(set(files)) == int(totals[1]) and num_tests == int(totals[2])
    agrees = agrees and set(entries) <= set(files)
    agrees = agrees and ("failed" in table.values()) == (lines[-1] == "Result: FAIL")
    return table if agrees else dict.fromkeys([*table, *files], "failed")


def test_names(descriptions: list[str]) -> list[str]:
    """Names of a file's tests, directives cut off: a repeated one is `name#2`, `name#3`, ..."""
    names: list[str] = []
    seen = set()
    for description in descriptions:
        match = _DIRECTIVE.search(description)
        plain = description[: match.start()] if match else description
        name = base = plain.replace("\\#", "#").strip() or "(unnamed)"
        number = 1
        while name in seen:
            number += 1
            name = f"{base}#{number}"
        seen.add(name)
        names.append(name)
    return names


def _bails_out(line: str) -> bool:
    return line.startswith(("Bail out!", "Bailout called.", "FAILED--Further testing stopped"))


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """(file, lines below its heading) in order."""
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        match = _HEADER.match(line)
        if match:
            found.append((match[1], [match[2]] if match[2] else []))
        elif found:
            found[-1][1].append(line)
    return found


def _entries(lines: list[str]) -> dict[str, tuple[int, int, int, bool]]:
    """{file: (wait status, tests, failed, parse errors)} of the closing report."""
    found: dict[str, tuple[int, int, int, bool]] = {}
    current = ""
    for line in lines:
        match = _ENTRY.match(line)
        if match:
            current = match[1]
            found[current] = (int(match[2]), int(match[3]), int(match[4]), current in found)
        elif current and line.startswith("  Parse errors:"):
            found[current] = (*found[current][:3], True)
    return found


def _read_file(
    file: str,
    body: list[str],
    tests: list["re.Match[str]"],
    entry: tuple[int, int, int, bool] | None,
) -> dict[str, str]:
    table: dict[str, str] = {}
    num_failed = 0
    names = test_names([match[3] or "" for match in tests])
    for match, name in zip(tests, names, strict=True):
        failed = bool(match[1]) and not _TODO.search(match[3] or "")
        num_failed += failed
        if failed:
            table[f"{file}::{name}"] = "failed"
        elif not match[1] and not _DIRECTIVE.search(match[3] or ""):
            table[f"{file}::{name}"] = "passed"
    if _is_sound(body, tests, num_failed, entry):
        return table
    return {file: "failed", **dict.fromkeys((f"{file}::{name}" for name in names), "failed")}


def _is_sound(
    body: list[str],
    tests: list["re.Match[str]"],
    num_failed: int,
    entry: tuple[int, int, int, bool] | None,
) -> bool:
    """Whether numbering, plan, exit status and prove's own report tell the same of one file."""
    status, counted, reported, errors = entry or (0, len(tests), 0, False)
    if errors or reported != num_failed or counted != len(tests):
        return False
    if status & 127 or status >> 8 not in (0, 1, min(num_failed, 254)):
        return False
    if status and not num_failed:
        return False
    if any(line.startswith("skipped") for line in body[:1]):
        return not tests and not status
    plans = [match[1] for line in body if (match := _PLAN.match(line))]
    numbers = [int(match[2]) for match in tests]
    return plans == [str(len(tests))] and numbers == list(range(1, len(tests) + 1))


if __name__ == "__main__":
    output = sys.stdin.buffer.read().decode("utf-8", "replace")
    json.dump(parse(output), sys.stdout)
