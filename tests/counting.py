"""A sandbox that tells what it was asked."""

from __future__ import annotations

import threading

from selfplay.errors import SandboxError
from selfplay.sandbox.base import Job, RunResult, Sandbox


class Counting:
    """A real sandbox that counts what it is asked to run."""

    name = "counting"

    def __init__(self, inner: Sandbox, failures: int = 0) -> None:
        self.inner, self.failures = inner, failures
        self.jobs: list[Job] = []
        self.lock = threading.Lock()

    def run(self, job: Job) -> RunResult:
        with self.lock:
            self.jobs.append(job)
            if self.failures:
                self.failures -= 1
                raise SandboxError("no space left on device")
        return self.inner.run(job)

    def close(self) -> None:
        pass
