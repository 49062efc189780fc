"""Scripts and parsers that an injector could have written itself, and patches as text."""

from __future__ import annotations

from ..projects import LEDGER

OWN_SCRIPT = (
    "python -m pytest -v -rpfE -p no:cacheprovider --color=no " + " ".join(LEDGER.test_files) + "\n"
)
OWN_PARSER = """\
import json, re, sys

table = {}
for line in sys.stdin:
    match = re.match(r"(PASSED|FAILED) (\\S+)", line)
    if match:
        table[match[2]] = match[1].lower()
print(json.dumps(table))
"""


def parser(body: str) -> str:
    """A parser that has the whole output in `text` and what `OWN_PARSER` reads in `table`."""
    reading = OWN_PARSER.replace("in sys.stdin", "in text.splitlines()").rsplit("print", 1)[0]
    return reading.replace("table = {}", "text = sys.stdin.read()\ntable = {}") + body + "\n"


def new_file(path: str, *lines: str, mode: str = "100644") -> str:
    """A patch that creates a file."""
    added = "".join(f"+{line}\n" for line in lines)
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1,{len(lines)} @@\n{added}"
    )


LINK = new_file("ledger/link.py", "/etc/passwd", mode="120000")
OUTSIDE = "--- a/../up.py\n+++ b/../up.py\n@@ -0,0 +1 @@\n+x\n"
BINARY = (
    "diff --git a/ledger/fast.bin b/ledger/fast.bin\nnew file mode 100644\nindex 000..111\n"
    "GIT binary patch\nliteral 1\nIc${Nk00001\n\n"
)


def misfit(path: str) -> str:
    """A patch whose context no file has."""
    return f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-nothing like it\n+something else\n"


FLOOD = "print('\\n'.join(['x' * 99] * 400_000))"
"""A statement that prints 40 MB; pytest shows it where the test fails."""
WAITS = "import threading\nthreading.Event().wait()"
"""Statements that never end and need no processor."""
HANG_LIMIT_S = 15.0
"""Seconds for a script that hangs on one state, and must end in time on the others."""
