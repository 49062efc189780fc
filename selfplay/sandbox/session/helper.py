"""Answers commands of a session that ask for a run of a program which their sandbox does not hold.

Each run is a job of its own, in a fresh sandbox: the session's commands see what the program says
and how it ends, and never its files or its process. The words come from untrusted code.
"""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass, replace
from typing import Any

from selfplay.sandbox.base import Helper, Sandbox

STDOUT = "stdout"
MAX_WORDS, MAX_STDIN = 100_000, 1 << 20
"""Bytes of all arguments together, and of standard input."""


@dataclass(kw_only=True)
class Helping:
    """The runs that one session has asked for."""

    helper: Helper
    sandbox: Sandbox
    num_runs: int = 0

    def answer(self, question: object) -> dict[str, Any]:
        """What the program says to a question as `asking.py` writes it, or why it was not run.
        Raises `SandboxError`."""
        try:
            document = json.loads(base64.b64decode(str(question)))
            words = [base64.b64decode(word) for word in document["argv"]]
            stdin = base64.b64decode(document["stdin"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return {"problem": "the question cannot be read"}
        if sum(map(len, words)) + len(words) > MAX_WORDS or len(stdin) > MAX_STDIN:
            return {"problem": "the question is too long"}
        if any(b"\0" in word for word in words):
            return {"problem": "an argument holds a zero byte"}
        if self.num_runs >= self.helper.max_runs:
            return {"problem": f"it was run {self.num_runs} times, which is all that is allowed"}
        self.num_runs += 1
        job = self.helper.job
        argv = ("sh", "-c", f'"$0" "$@" >/out/{STDOUT}', *job.argv, *map(os.fsdecode, words))
        result = self.sandbox.run(replace(job, argv=argv, stdin=stdin))
        if result.timed_out:
            return {"problem": f"it did not end within {job.quota.timeout_s:g} s"}
        if result.stopped or result.output_truncated:
            return {"problem": f"it was stopped: {result.stopped or 'too much output'}"}
        said = {"stdout": result.files.get(STDOUT, b""), "stderr": result.output}
        answer: dict[str, Any] = {k: base64.b64encode(v).decode() for k, v in said.items()}
        return {**answer, "exit_code": result.exit_code}
