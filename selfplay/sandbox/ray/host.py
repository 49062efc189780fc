"""What an actor is on each node: the sandboxes of that node, asked from the driver.

Nothing here imports ray. Faults come back as values: an error that an actor raises arrives wrapped,
with a traceback of another machine, and would have to be told from the loss of the actor itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES
from pathlib import Path
from typing import Any, TypeVar

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.host import share_files
from selfplay.sandbox.select import open_sandbox
from selfplay.sandbox.session.session import Session

T = TypeVar("T")
MAX_SESSIONS = 512
"""Sessions of one node: each waits in a thread while it is asked something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What must be the same on every node: `code` is a digest of this package's source."""

    sandbox: str
    python: str
    code: str


class SandboxHost:
    """The sandboxes of one node. Every method answers with what it found, or with the error."""

    def __init__(self, options: SandboxConfig, num_slots: int) -> None:
        share_files()
        self._sandbox = open_sandbox(options.name, options)
        self._sessions: dict[str, Session] = {}
        self._there: set[str] = set()
        self._lock = threading.Lock()
        # A sandbox dies with the thread that started it: these stay as long as the actor.
        self._threads = ThreadPoolExecutor(num_slots + MAX_SESSIONS, thread_name_prefix="host")

    async def describe(self) -> HostFacts:
        """What this node has."""
        return HostFacts(
            sandbox=self._sandbox.name,
            python=sys.version.split()[0],
            code=code_digest(),
        )

    async def run(self, job: Job) -> RunResult | SelfplayError:
        """See `Sandbox.run`."""
        return await self._in_thread(lambda: self._run(job))

    async def open(self, key: str, job: Job) -> SelfplayError | None:
        """Begin a session that the driver calls `key`."""
        return await self._in_thread(lambda: self._open(key, job))

    async def call(
        self, key: str, request: Mapping[str, Any], timeout_s: float
    ) -> dict[str, Any] | SelfplayError:
        """One request to a session."""
        return await self._in_thread(lambda: self._sessions[key].call(request, timeout_s))

    async def close_session(self, key: str) -> SelfplayError | None:
        """End a session; one that never was is ended already."""
        session = self._sessions.pop(key, None)
        return await self._in_thread(session.close) if session else None

    async def close(self) -> None:
        """End the sessions, remove what the sandbox holds."""
        for key in list(self._sessions):
            await self.close_session(key)
        await self._in_thread(self._sandbox.close)

    def _run(self, job: Job) -> RunResult:
        self._check_files(job)
        return self._sandbox.run(job)

    def _open(self, key: str, job: Job) -> None:
        self._check_files(job)
        self._sessions[key] = Session(self._sandbox, job)

    def _check_files(self, job: Job) -> None:
        """Whether the node sees what the job's environment is made of."""
        environment = job.environment
        if environment.digest in self._there:
            return
        places = [environment.tree, *map(Path, environment.mounts)]
        missing = [str(place) for place in places if not place.exists()]
        if missing:
            raise SandboxError(
                f"this node has no {', '.join(missing)}: SELFPLAY_CACHE and the interpreter must "
                "lie on a file system that all nodes share"
            )
        with self._lock:
            self._there.add(environment.digest)

    async def _in_thread(self, work: Callable[[], T]) -> T | SelfplayError:
        def guarded() -> T | SelfplayError:
            try:
                return work()
            except SelfplayError as error:
                return error

        return await asyncio.get_running_loop().run_in_executor(self._threads, guarded)


@cache
def code_digest() -> str:
    """Of this package's Python source: nodes with another version would judge differently."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for file in sorted(f for f in root.rglob("*") if f.suffix in SOURCE_SUFFIXES):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
