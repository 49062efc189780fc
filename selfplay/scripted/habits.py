"""How the scripted agents go about the tests of each language, as a person would at a shell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How tests of one language are found, run and read.

    test_file   names by which the agents notice the language
    """

    test_file: re.Pattern[str]
    find_tests: str
    find_sources: str
    script: str
    parser: str


PYTEST_PARSER = """\
import json
import re
import sys

table = {}
for line in sys.stdin.buffer.read().decode("utf-8", "replace").splitlines():
    found = re.match(r"(\\S+\\.py::.+?) (PASSED|FAILED|ERROR|SUBFAILED)", line)
    if found:
        passed = found[2] == "PASSED" and table.get(found[1]) != "failed"
        table[found[1]] = "passed" if passed else "failed"
json.dump(table, sys.stdout)
"""
PROVE_PARSER = """\
import json
import re
import sys

table, file = {}, ""
for line in sys.stdin.buffer.read().decode("utf-8", "replace").splitlines():
    heading = re.match(r"(\\S+\\.t) \\.{2,}", line)
    found = re.match(r"(not )?ok \\d+ - (.+)$", line)
    if heading:
        file = heading[1]
    elif found and file:
        name = file + "::" + found[2].strip()
        table[name] = "failed" if found[1] or table.get(name) == "failed" else "passed"
json.dump(table, sys.stdout)
"""
PYTHON = Habits(
    test_file=re.compile(r"test_\S+\.py"),
    find_tests="find . -name 'test_*.py' -size +1k -printf '%s %P\\n' | sort -n | cut -d' ' -f2-",
    find_sources="find . -name '*.py' -not -path '*/test*' -not -name 'test_*' -not -name setup.py "
    "-not -name conftest.py -not -path './doc*' -not -path './.*' -size +1k -printf '%P\\n' | sort",
    script="exec python -m pytest -v --color=no --tb=short -p no:cacheprovider -o addopts= -- ",
    parser=PYTEST_PARSER,
)
PERL = Habits(
    test_file=re.compile(r"\S+\.t"),
    find_tests="find t -name '*.t' -printf '%s %P\\n' | sort -n | cut -d' ' -f2- | sed s,^,t/,",
    find_sources="find lib -name '*.pm' | sort",
    script="exec prove --norc -lv --merge ",
    parser=PROVE_PARSER,
)
HABITS: dict[str, Habits] = {"Perl": PERL, "Python": PYTHON}
"""By `Language.name`."""


def habits_for(names: Iterable[str]) -> Habits:
    """Those of the language that some file's name gives away, else Python's."""
    seen = list(names)
    known = (h for h in HABITS.values() if any(h.test_file.fullmatch(name) for name in seen))
    return next(known, PYTHON)
