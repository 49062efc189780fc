"""The script by which another harness grades a bug as we do: the same options, environment and
oracle tests, on the tree that a solver left at /testbed.

What an answer did to test files is undone first where /testbed is a git repository, and nothing is
run where the oracle tests cannot be put in place: no result is not a pass. The bug's own parser
reads the log there, and between the marks stands its table as TAP, in which ids keep their blanks;
the log itself comes before, with a bar in front of each line so that none reads as a result.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from selfplay.bugs.patches.diffs import reverse_patch, touched_files
from selfplay.repo.dependencies.venv import PLUGINS
from selfplay.types import BugArtifact

_HEAD = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
export PYTHONHASHSEED=0
"""
_PLUGIN = """\
mkdir -p /tmp/selfplay-plugins
cat > /tmp/selfplay-plugins/{name}.py <<'END_OF_PLUGIN'
{text}END_OF_PLUGIN
export PYTHONPATH=/tmp/selfplay-plugins${{PYTHONPATH:+:$PYTHONPATH}}
"""
_TESTS = """\
if git rev-parse -q --verify HEAD; then
  for file in {files}; do git checkout -q HEAD -- "$file" || rm -f "$file"; done
fi
cat > /tmp/selfplay-tests.patch <<'END_OF_TEST_PATCH'
{patch}END_OF_TEST_PATCH
git apply --whitespace=nowarn /tmp/selfplay-tests.patch \\
  || git apply --whitespace=nowarn --reverse --check /tmp/selfplay-tests.patch || exit 1
"""
_RUN = """\
bash > /tmp/selfplay-log 2>&1 <<'END_OF_TEST_SCRIPT'
{script}END_OF_TEST_SCRIPT
ended=$?
cat > /tmp/selfplay-parser.py <<'END_OF_TEST_PARSER'
{parser}END_OF_TEST_PARSER
cat > /tmp/selfplay-tap.py <<'END_OF_TAP'
{tap}END_OF_TAP
LC_ALL=C sed 's/>>>>>/> > >/g; s/^/| /' /tmp/selfplay-log
: '>>>>> Start Test Output'
python3 -I /tmp/selfplay-parser.py < /tmp/selfplay-log | python3 -I /tmp/selfplay-tap.py
(exit "$ended")
: '>>>>> End Test Output'
"""
_TAP = """\
import json, sys
sys.stdout.reconfigure(errors="backslashreplace")
for number, (test, status) in enumerate(json.load(sys.stdin).items(), start=1):
    print("ok" if status == "passed" else "not ok", number, test)
"""
LOG_PARSER = "parse_log_tap"
"""What reads the script's output in SWE-bench's harness."""


def eval_script(artifact: BugArtifact, variables: Mapping[str, str]) -> str:
    """The script for one bug; `variables` as `export/sources.py` tells them."""
    parts = [_HEAD]
    for name, value in variables.items():
        rest = "${PYTHONPATH:+:$PYTHONPATH}" if name == "PYTHONPATH" else ""
        parts.append(f"export {name}={shlex.quote(value)}{rest}\n")
    for name in variables.get("PYTEST_PLUGINS", "").split(","):
        if name in PLUGINS:
            text = PLUGINS[name].read_text(encoding="utf-8")
            parts.append(_PLUGIN.format(name=name, text=text))
    if artifact.weakening_patch.strip():
        touched = touched_files(artifact.weakening_patch)
        files = dict.fromkeys([*artifact.test_files, *touched])
        patch = reverse_patch(artifact.weakening_patch)
        parts.append(_TESTS.format(files=shlex.join(files), patch=patch))
    script, parser = (ended(text) for text in (artifact.test_script, artifact.test_parser))
    parts.append(_RUN.format(script=script, parser=parser, tap=_TAP))
    return "".join(parts)


def ended(text: str) -> str:
    """With a newline at its end, as a text in a script of the shell needs it."""
    return text if text.endswith("\n") else f"{text}\n"
