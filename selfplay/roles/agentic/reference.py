"""The reference executable of a task, to be run by its solver and never to be read.

It is put into no solver's sandbox. A command there asks for a run, which has a sandbox of its own:
the tree that the solver sees, and the executable beside it, on a read-only mount whose name only
its content tells. A binary may there be run and not be read (mode 0111). A script must be readable
by its interpreter: one that shows any file that it is told to could show itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from selfplay.bug_sources.reference_programs import PROGRAM, packed
from selfplay.bugs.sealing import Sealed
from selfplay.cache import cache_root
from selfplay.files import waiting_lock, write_atomic
from selfplay.sandbox.base import Helper, Job, Quota
from selfplay.types import SolveTask

BINARY = b"\x7fELF"
RUN = Quota(timeout_s=10.0, output=1 << 20)
"""Bounds of one run; a test of such a task has 20 s."""


def reference_helper(task: SolveTask, tree: Path, sealed: Sealed, max_runs: int) -> Helper | None:
    """What runs the reference for a solver of this task; None where it has none or may not ask."""
    if task.artifact.meta.get("level") != PROGRAM or not max_runs:
        return None
    content = packed(tree)
    if content is None:
        return None
    digest = hashlib.sha256(content).hexdigest()[:24]
    folder, inside = _unpacked(content, digest), f"/reference-{digest}"
    environment = replace(
        sealed.environment,
        mounts={**sealed.environment.mounts, str(folder): inside},
        digest=f"{sealed.environment.digest}-reference-{digest}",
    )
    job = Job(
        environment=environment,
        argv=(f"{inside}/{PROGRAM}",),
        layer=sealed.layer,
        quota=RUN,
    )
    return Helper(job=job, max_runs=max_runs)


def _unpacked(content: bytes, digest: str) -> Path:
    """The folder that holds the executable alone."""
    root = cache_root() / "references"
    root.mkdir(exist_ok=True)
    file = root / digest / PROGRAM
    with waiting_lock(root / f"{digest}.lock"):
        mode = 0o111 if content.startswith(BINARY) else 0o555
        if not (file.is_file() and file.stat().st_mode & 0o777 == mode):
            file.parent.mkdir(exist_ok=True)
            write_atomic(file, content)
            file.chmod(mode)
    return file.parent
