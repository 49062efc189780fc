"""What a sandbox is: one protocol, two production backends (bubblewrap, docker), one unsafe one.

A sandbox runs one command on a fresh snapshot of a repository: the original tree below, one
`Layer` of changed files above, writes thrown away. Untrusted code runs nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from selfplay.types import Layer

WORKDIR = "/testbed"
"""Where the repository's root lies inside every sandbox; also the command's working directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A prepared repository as a sandbox sees it. Everything is read-only inside.

    tree     host directory with the original source tree (no .git), seen at `WORKDIR`
    mounts   further read-only host paths -> path inside (interpreter, installed packages)
    path     value of PATH inside
    image    Docker image that carries the environment instead of `mounts`, or None
    digest   content hash of all of the above: the key of every cache
    """

    tree: Path
    mounts: Mapping[str, str]
    path: str
    digest: str
    image: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Bounds on one run. Sizes in bytes."""

    timeout_s: float = 90.0
    memory: int = 4 << 30
    num_processes: int = 256
    file_size: int = 256 << 20
    output: int = 32 << 20

    def limits(self) -> dict[str, int]:
        """Resource limits of each process, by the lower-case names of setrlimit(2)."""
        cpu_s = int(self.timeout_s * (os.cpu_count() or 1)) + 5
        limits = {"nproc": self.num_processes, "as": self.memory, "cpu": cpu_s}
        return {**limits, "fsize": self.file_size, "core": 0, "nofile": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One command. `inputs` are extra read-only files at /in/NAME; files that the command leaves
    in /out come back in `RunResult.files` (at most 64 files, `Quota.output` bytes in all).

    `module` says that `argv` does the same as `python -m` with these words. A sandbox that keeps an
    interpreter with that module loaded may fork it instead of running `argv`.
    `attach` is set for the job behind a `Session`: the command is then the first process of its
    namespaces, and `attach` is called with the folder that it sees as /in before it starts.
    `helper` is a program that commands of a session may run though their sandbox does not hold it.
    """

    environment: Environment
    argv: tuple[str, ...]
    layer: Layer = field(default_factory=dict)
    stdin: bytes = b""
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    quota: Quota = Quota()
    module: tuple[str, ...] = ()
    attach: Callable[[Path], None] | None = None
    helper: Helper | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A program for the commands of a session (`session/helper.py`): its job, to whose `argv` their
    words are added, and how many runs one session may ask for."""

    job: Job
    max_runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a command ended. `output` is stdout and stderr combined, in order, cut at
    `Quota.output` (then `output_truncated`); `exit_code` is None when `timed_out`; `stopped` names
    the bound (files, memory) for which the sandbox ended it, where that is known."""

    exit_code: int | None
    timed_out: bool
    output: bytes
    output_truncated: bool
    duration_s: float
    files: Mapping[str, bytes] = field(default_factory=dict)
    stopped: str = ""


class Sandbox(Protocol):
    """Runs jobs; thread-safe: many jobs may run at once.

    Raises `SandboxError` when the sandbox itself fails (never for what the command does), so that
    an infrastructure fault cannot be mistaken for a verdict.
    """

    name: str

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot and return when its whole process tree is gone."""
        ...

    def close(self) -> None:
        """Release everything that the sandbox holds. Idempotent."""
        ...
