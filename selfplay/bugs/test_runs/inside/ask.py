"""A program that goes into the sandbox: are the questions true? Self-contained.

Reads /in/questions.json, a list of {module, function, input, output}; /out/answers.txt has a "1"
for each that is true, in order, else a "0". Each is asked in a process of its own that has imported
its module and nothing else: what another call or another module leaves behind answers nothing. What
a call prints, raises or hangs at is its own affair.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from selfplay_values import literal  # type: ignore[import-not-found]

MAX_SECONDS = 2.0
"""Of one call."""
IMPORT_S = 30.0
POLL_S = 0.0005
Question = dict[str, str]


def holds(module: Any, question: Question) -> bool:
    """Whether the call gives the value, of the same types."""
    value = eval(f"f({question['input']})", {"f": getattr(module, question["function"])})
    return bool(literal(value) == question["output"])


def apart(action: Callable[[], object], seconds: float) -> None:
    """Do something in a child of this process, which is killed when its time is up."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    end = time.monotonic() + seconds
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(POLL_S)


def ask(numbered: list[tuple[int, Question]], answers: mmap.mmap) -> None:
    """The questions on one module."""
    module = importlib.import_module(numbered[0][1]["module"])

    def one(number: int, question: Question) -> None:
        if holds(module, question):
            answers[number] = ord("1")

    for number, question in numbered:
        apart(lambda n=number, q=question: one(n, q), MAX_SECONDS)  # type: ignore[misc]


def main() -> None:
    sys.path.insert(0, str(Path.cwd()))
    questions = json.loads(Path("/in/questions.json").read_text(encoding="utf-8"))
    file = Path("/out/answers.txt")
    file.write_bytes(b"0" * len(questions))
    by_module = sorted(enumerate(questions), key=lambda item: str(item[1]["module"]))
    with file.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as answers:
        for _, group in groupby(by_module, key=lambda item: str(item[1]["module"])):
            found = list(group)
            seconds = IMPORT_S + (MAX_SECONDS + 1) * len(found)
            apart(lambda f=found: ask(f, answers), seconds)  # type: ignore[misc]


main()
