"""A program that goes into the sandbox: are the questions true? Self-contained.

Reads /in/questions.json, a list of {module, function, input, output}; appends a line "1" or "0" to
/out/answers.txt for each, in order. What a call prints, raises or hangs at is its own affair.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

from selfplay_values import literal  # type: ignore[import-not-found]

MAX_SECONDS = 2


def holds(question: dict[str, str]) -> bool:
    """Whether the call gives the value, of the same types."""
    function = getattr(importlib.import_module(question["module"]), question["function"])
    value = eval(f"f({question['input']})", {"f": function})
    return bool(literal(value) == question["output"])


def too_long(number: int, frame: Any) -> None:
    raise TimeoutError


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    signal.signal(signal.SIGALRM, too_long)
    with Path("/out/answers.txt").open("w", buffering=1, encoding="ascii") as answers:
        for question in json.loads(Path("/in/questions.json").read_text(encoding="utf-8")):
            signal.alarm(MAX_SECONDS)
            try:
                found = holds(question)
            except BaseException:
                found = False
            finally:
                signal.alarm(0)
            answers.write(f"{found:d}\n")


main()
