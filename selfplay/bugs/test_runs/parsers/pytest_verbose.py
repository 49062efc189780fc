"""Reads the output of `python -m pytest -v -rpfE` on stdin, prints {node id: "passed"|"failed"}.

Only a run that came to its end counts: passes are read from the last short summary, must agree
in number with pytest's closing line, and any failure or error of a test (setup, teardown, one
subtest) outweighs its pass. Skipped and expected failures are left out.
"""

import json
import re
import sys

_HEADER = re.compile(r"=+ short test summary info =+$")
_CLOSING = re.compile(r"=* ?((?:\d+ [a-z ]+(?:, )?)+) in [\d.]+s(?: \([\d:]+\))? ?=*$")
_PROGRESS = re.compile(r"(\S.*?::.*|\S+\.py) (PASSED|FAILED|ERROR|XPASS|XFAIL)(?: +\[[^]]*\])?$")
_FAILURES = ("FAILED ", "ERROR ")
_ENTRIES = ("PASSED ", *_FAILURES)
_SUBTEST = re.compile(r"SUBFAILED[\[( ]")
UNATTRIBUTED = "(subtest that no test could be found for)"


def parse(text: str) -> dict[str, str]:
    """{node id: "passed" or "failed"}; empty when pytest did not reach its closing line."""
    lines = text.replace("\r\n", "\n").split("\n")
    ends = [(i, m[1]) for i, line in enumerate(lines) if (m := _CLOSING.match(line))]
    headers = [i for i, line in enumerate(lines) if _HEADER.match(line)]
    if not ends or not headers or headers[-1] > ends[-1][0]:
        return {}
    end, closing = ends[-1]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z ]+)", closing)}
    summary = _entries(lines[headers[-1] + 1 : end])
    table = _summary(summary, _progress(lines))
    num_passed = sum(1 for line in summary if line.startswith("PASSED "))
    if num_passed != counts.get("passed", 0):
        return dict.fromkeys(table, "failed")
    return table


def _entries(lines: list[str]) -> list[str]:
    """The summary's lines, an id with line breaks of its own in one."""
    entries: list[str] = []
    for line in lines:
        last = entries[-1] if entries else ""
        opened = last.startswith(_ENTRIES) and last.count("[") > last.count("]")
        if opened and not line.startswith((*_ENTRIES, "SUBFAILED")):
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    return entries


def _progress(lines: list[str]) -> dict[str, str]:
    """Every node id of a progress line with its worst status there."""
    seen: dict[str, str] = {}
    for line in lines:
        match = _PROGRESS.match(line)
        if match and not line.startswith(("PASSED ", "FAILED ", "ERROR ", "SUBFAILED")):
            test, status = match.groups()
            seen[test] = "FAILED" if status in ("FAILED", "ERROR") else seen.get(test, status)
    return seen


def _summary(lines: list[str], known: dict[str, str]) -> dict[str, str]:
    table: dict[str, str] = {}
    position = 0
    while position < len(lines) and lines[position].startswith("PASSED "):
        table[lines[position][len("PASSED ") :]] = "passed"
        position += 1
    tests = {**known, **table}
    for number, line in enumerate(lines[position:], position):
        if line.startswith(_FAILURES):
            table[_failed_id(line.split(" ", 1)[1], tests)] = "failed"
        elif _SUBTEST.match(line):
            for test in _parents(lines[number:], tests):
                table[test] = "failed"
    for test, status in known.items():
        if status == "FAILED" and test in table:
            table[test] = "failed"
    return table


def _failed_id(rest: str, tests: dict[str, str]) -> str:
    """The node id of `ID - message`, where the id itself may hold " - "."""
    cuts = [match.start() for match in re.finditer(" - ", rest)] + [len(rest)]
    for cut in reversed(cuts):
        if rest[:cut] in tests:
            return rest[:cut]
    balanced = (c for c in cuts if rest[:c].count("[") <= rest[:c].count("]"))
    return rest[: next(balanced, cuts[0])].rstrip()


def _parents(lines: list[str], tests: dict[str, str]) -> list[str]:
    """The test that a SUBFAILED line belongs to; its description may hold line breaks."""
    text = lines[0]
    for line in lines[1:6]:
        found = [t for t in tests if f" {t} - " in f"{text} - "]
        if found:
            return [max(found, key=len)]
        text += "\n" + line
    found = [t for t in tests if f" {t} - " in f"{text} - "]
    return [max(found, key=len)] if found else [UNATTRIBUTED]


if __name__ == "__main__":
    output = sys.stdin.buffer.read().decode("utf-8", "replace")
    json.dump(parse(output), sys.stdout)
