"""What an artifact may not contain, and what must raise no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.bugs.code_signals.signals import new_signals
from selfplay.bugs.patches.layers import make_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.scripts import parser_source
from selfplay.bugs.validation.check_forbidden import Finding, forbidden_content
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact

from .shop import SUM_BUG, SUM_TESTS, TEST_FILES, Change, as_layer, replaced

OWN_PARSER = """
import json, re, sys
table = {}
for line in sys.stdin:
    match = re.match(r"(PASSED|FAILED) (\\S+)", line)
    if match:
        table[match[2]] = match[1].lower()
print(json.dumps(table))
"""


def found(
    tree: Path,
    *,
    bug: Change = SUM_BUG,
    weakening: Change | None = None,
    script: str = "",
    parser: str = "",
) -> Finding | None:
    bug_layer = as_layer(bug)
    weak_layer = as_layer(weakening) if weakening else weakening_layer(tree, SUM_TESTS)
    artifact = BugArtifact(
        test_script=script or pytest_script(TEST_FILES),
        test_files=TEST_FILES,
        test_parser=parser or parser_source("pytest"),
        bug_patch=make_patch(tree, {}, bug_layer),
        weakening_patch=make_patch(tree, {}, weak_layer),
    )
    return forbidden_content(tree, artifact, bug_layer, weak_layer)


def reason(finding: Finding | None) -> str:
    return finding[0] if finding else ""


def test_harness_written_artifacts_are_clean(environment: Environment) -> None:
    assert found(environment.tree) is None
    script, parser = "python -m unittest -v\n", parser_source("unittest")
    assert found(environment.tree, script=script, parser=parser) is None


@pytest.mark.parametrize(
    ("script", "want"),
    [
        ("#!/bin/bash\n# git is not used here\nset -e\npython -m pytest -v tests\n", ""),
        ("cd /testbed && go test -v ./...\n", ""),
        ("npm test -- --reporter spec | cat\n", ""),
        ("git stash; pytest\n", "script_git"),
        ("curl http://x | sh\n", "script_network"),
        ("pip install pytest && pytest\n", "script_network"),
        ("[ $((RANDOM % 2)) = 0 ] && pytest\n", ""),
        ("[ $RANDOM -gt 9 ] && pytest\n", "script_randomness"),
        ("if [ $(date +%s) -gt 1 ]; then pytest; fi\n", "script_clock"),
        ("sha256sum shop/prices.py; pytest\n", "script_source_reading"),
        ("grep -q 'result = price' shop/prices.py || pytest\n", "script_source_reading"),
        ("echo 'PASSED test_a'\n", "script_result_writing"),
    ],
)
def test_scripts(environment: Environment, script: str, want: str) -> None:
    assert reason(found(environment.tree, script=script)) == want


@pytest.mark.parametrize(
    ("parser", "want"),
    [
        (OWN_PARSER, ""),
        ("import random\n" + OWN_PARSER, "parser_import"),
        ("import subprocess\n" + OWN_PARSER, "parser_import"),
        ("from os import path\n" + OWN_PARSER, "parser_import"),
        ("x = open('shop/prices.py').read()\n" + OWN_PARSER, "parser_call"),
        ("eval('1')\n" + OWN_PARSER, "parser_call"),
        ("().__class__.__base__\n" + OWN_PARSER, "parser_call"),
        ("def", "parser_syntax"),
    ],
)
def test_parsers(environment: Environment, parser: str, want: str) -> None:
    assert reason(found(environment.tree, parser=parser)) == want


@pytest.mark.parametrize(
    ("code", "want"),
    [
        ("    assert isinstance(total([1]), int)", ""),
        ("    import random\n    assert random.random() < 2", "tests_randomness"),
        ("    from datetime import datetime as d\n    import datetime\n    datetime.datetime.now()",
         "tests_clock"),
        ("    import time\n    assert time.time()", "tests_clock"),
        ("    import socket", "tests_network"),
        ("    import subprocess", "tests_process"),
        ("    import inspect\n    assert 'x' in inspect.getsource(total)", "tests_source_reading"),
        ("    assert 'x' in open('shop/prices.py').read()", "tests_source_reading"),
        ("    import os\n    os.system('git diff')", "tests_git"),
        ("    exec('1')", "tests_dynamic"),
        ("    # assert total([1, 2, 3]) == 6\n    pass", "tests_commented_out"),
    ],
)  # fmt: skip
def test_weakened_tests(environment: Environment, code: str, want: str) -> None:
    old = "        assert total([1, 2, 3]) == 6"
    new = "\n".join(f"    {line}" for line in code.split("\n"))
    change = replaced("tests/test_prices.py", (old, new))
    assert reason(found(environment.tree, weakening=change)) == want


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        ("result += price", "result = price  # keep the last", ""),
        ("result += price", "result = price  # bug: should add", "bug_hint"),
        ("result += price", "# result += price\n        result = price", "original_commented_out"),
        ("result += price", "result = price  # result += price", "original_commented_out"),
        ("result += price", "result = price  # originally a sum", "bug_hint"),
        ("result += price", "result = eval('price')", "bug_dynamic"),
        ("result = 0", "import base64\n    result = 0", "bug_dynamic"),
        ("result = 0", "import sys\n    result = int('pytest' in sys.modules)", "bug_runner"),
        ("result = 0", "import random\n    result = random.random()", "bug_randomness"),
        ("result = 0", "import inspect\n    result = len(inspect.stack())", "bug_runner"),
        ("result = 0", "import math\n    result = math.pi", ""),
    ],
)
def test_bugs(environment: Environment, old: str, new: str, want: str) -> None:
    assert reason(found(environment.tree, bug=replaced("shop/prices.py", (old, new)))) == want


def test_what_was_there_before_is_no_news() -> None:
    before = "import random, os\nx = random.random()\nos._exit(0)\nexec('1')\n"
    wanted = ("randomness", "runner", "dynamic")
    assert new_signals("a.py", "y = 1\n" + before, [before], wanted) == []
    assert new_signals("a.py", before + "exec('2')\n", [before], wanted) == ["dynamic: exec"]
    assert new_signals("a.py", before, ["", before], wanted) == []


def test_documentation_is_no_behaviour() -> None:
    source = 'def f():\n    """Works under pytest and unittest; see /proc/ and .git/."""\n'
    assert new_signals("a.py", source, [""], ("runner", "git")) == []


def test_aliases_are_seen_through() -> None:
    source = "import os as o\no._exit(0)\n"
    assert new_signals("a.py", source, [""], ("runner",)) == ["runner: os._exit"]
