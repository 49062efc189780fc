"""A solver that looks for the answer: its command runs in the sealed tree, inside the sandbox."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from pathlib import Path

from selfplay.bugs.patches.layers import apply_patch
from selfplay.bugs.sealing import seal
from selfplay.cache import cache_root
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.workspace import open_solver
from selfplay.sandbox.base import Environment, Job, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.sandbox.owner import owner_token
from selfplay.types import BugArtifact

from .case import LookCase
from .projects import Project

LOOK_S = 60.0
ME = ("-c", "user.name=injector", "-c", "user.email=injector@localhost")


def look(
    case: LookCase,
    artifact: BugArtifact,
    project: Project,
    prepared: PreparedRepo,
    sandbox: Sandbox,
) -> str:
    """ "sealed" when the command prints the secret in the injector's tree, and not in the sealed
    one; "leaks" when it does in both. Raises where it finds nothing in the injector's tree."""
    root = cache_root() / "tests"
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{owner_token()}-look-", dir=root))
    folder.chmod(0o755)
    try:
        original, injector = folder / "original", folder / "injector"
        environment = prepared.environment
        shutil.copytree(environment.tree, original, symlinks=True)
        _litter(original, case, (original / project.source).read_text())
        _make_history(original, injector, artifact)
        digest = f"look-{original}-{case.name}"
        littered = dataclasses.replace(environment, tree=original, digest=digest)
        make_readable(folder)
        assert _sees(case, littered, injector, sandbox), f"{case.name}: finds nothing unsealed"
        session = open_solver(sandbox, seal(littered, artifact), {}, LOOK_S)
        try:
            seen = session.run(case.command, LOOK_S).output.decode("utf-8", "replace")
        finally:
            session.close()
        return "leaks" if case.secret in seen else "sealed"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sees(case: LookCase, environment: Environment, tree: Path, sandbox: Sandbox) -> bool:
    environment = dataclasses.replace(environment, tree=tree, digest=f"look-{tree}-{case.name}")
    result = sandbox.run(Job(environment=environment, argv=("sh", "-c", case.command)))
    return case.secret in result.output.decode("utf-8", "replace")


def _litter(original: Path, case: LookCase, text: str) -> None:
    for path, content in case.litter.items():
        (original / path).parent.mkdir(parents=True, exist_ok=True)
        (original / path).write_text(content.replace("{original}", text))


def _make_history(original: Path, injector: Path, artifact: BugArtifact) -> None:
    """The injector's tree: the original and the bug as two commits, with all that git keeps.

    The repository itself lies in the original, too, where sealing must not follow it.
    """
    shutil.copytree(original, injector, symlinks=True)
    _git(injector, "init", "-q", "-b", "main")
    _git(injector, "add", "-A", "-f")
    _git(injector, *ME, "commit", "-q", "-m", "as it was")
    _git(injector, "tag", "before")
    for path, change in apply_patch(original, {}, artifact.bug_patch).items():
        (injector / path).write_bytes(change.content or b"")
    _git(injector, *ME, "commit", "-q", "-a", "-m", "work")
    _git(injector, "gc", "-q")
    shutil.copytree(injector / ".git", original / ".git")


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
