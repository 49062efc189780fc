"""Reads the output of `python -m unittest -v -b` on stdin, prints {dotted id: "passed"|"failed"}.

Only a run that came to its end ("Ran N tests", then OK or FAILED) counts, and no more passes than
it ran. Skips and expected failures are left out; a failing subtest fails its test. What a test
writes past the buffer, such as a log, may stand between its name and its status.
"""

import json
import re
import sys

_TEST = re.compile(r" {0,2}(\w+) \(([\w.<>]+)\)(.*)$")
_STATUS = re.compile(r"(?:.*\.\.\. )?(ok|FAIL|ERROR|unexpected success)$")
_LEFT_OUT = re.compile(r"(?:\S.*\.\.\. )?(?:skipped ['\"]|expected failure$)")
_HEADING = re.compile(r"(FAIL|ERROR|UNEXPECTED SUCCESS): (\w+) \(([\w.<>]+)\)")
_RAN = re.compile(r"Ran (\d+) tests? in [\d.]+s$")
_VERDICT = re.compile(r"(OK|FAILED|NO TESTS RAN)\b")


def parse(text: str) -> dict[str, str]:
    """{module.Class.test: "passed" or "failed"}; empty when the run did not reach its end."""
    lines = text.replace("\r\n", "\n").split("\n")
    ends = [(i, int(m[1])) for i, line in enumerate(lines) if (m := _RAN.match(line))]
    if not ends:
        return {}
    end, num_ran = ends[-1]
    if not any(_VERDICT.match(line) for line in lines[end + 1 : end + 4]):
        return {}
    rule = next((i for i, line in enumerate(lines) if line == "=" * 70), end)
    table = _progress(lines[:rule])
    for line in lines[rule:end]:
        match = _HEADING.match(line)
        if match:
            table[_test_id(match[2], match[3])] = "failed"
    num_passed = sum(status == "passed" for status in table.values())
    if num_passed > num_ran:
        return dict.fromkeys(table, "failed")
    return table


def _progress(lines: list[str]) -> dict[str, str]:
    table: dict[str, str] = {}
    for test, said in _sections(lines):
        statuses = [match[1] for line in said if (match := _STATUS.match(line))]
        if any(status != "ok" for status in statuses):
            table[test] = "failed"
        elif not any(_LEFT_OUT.match(line) for line in said):
            last = next((line for line in reversed(said) if line.strip()), "")
            if statuses or last.endswith("ok"):  # behind text without a line's end
                table.setdefault(test, "passed")
    return table


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """(test, what stands behind its name and below it, up to the next test) in order."""
    found: list[tuple[str, list[str]]] = []
    documented = False
    for line in lines:
        named = _TEST.match(line)
        if named and not documented and not line.startswith(" "):
            found.append((_test_id(named[1], named[2]), [named[3]]))
            documented = not named[3].strip()  # the docstring's first line comes next
            continue
        documented = False
        if found:
            found[-1][1].append(line)
    return found


def _test_id(name: str, where: str) -> str:
    """Python 3.11 repeats the method in the brackets, older versions do not."""
    return where if where.endswith(f".{name}") else f"{where}.{name}"


if __name__ == "__main__":
    output = sys.stdin.buffer.read().decode("utf-8", "replace")
    json.dump(parse(output), sys.stdout)
