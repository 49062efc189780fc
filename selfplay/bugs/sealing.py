"""The solver's tree: bug and weakening applied, history and every copy of the original removed.

Grading never reads it; it restores from the original tree (docs/validation.md).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from selfplay.bugs.leaks import Secret, is_leaky, list_files, run_git, tree_leaks
from selfplay.bugs.patches.layers import apply_patch
from selfplay.errors import InfrastructureError, UserError
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, FileChange, Layer


def sealed_layer(tree: Path, artifact: BugArtifact) -> Layer:
    """Original tree -> what the solver sees. Raises `PatchError` when a patch does not apply."""
    bug = apply_patch(tree, {}, artifact.bug_patch)
    sealed = dict(apply_patch(tree, bug, artifact.weakening_patch))
    for path in list_files(tree):
        if is_leaky(path):
            sealed[path] = FileChange(content=None)
    return sealed


def write_sealed_tree(environment: Environment, artifact: BugArtifact, dest: Path) -> None:
    """Write the solver's tree as a fresh git repository with one commit and no remote.

    `dest` must not exist or be empty. Raises `UserError` for the destination, `PatchError` for
    the patches, `InfrastructureError` when a leak is left or git fails.
    """
    if dest.exists() and any(dest.iterdir()):
        raise UserError(f"dest={dest}: is not empty; name a new directory")
    tree = environment.tree
    sealed = sealed_layer(tree, artifact)
    dest.mkdir(parents=True, exist_ok=True)
    for path in list_files(tree):
        if path not in sealed:
            target = dest / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / path, target, follow_symlinks=False)
    for path, change in sealed.items():
        if change.content is not None:
            target = dest / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(change.content)
            target.chmod(0o755 if change.executable else 0o644)
    _commit(dest)
    leaks = tree_leaks(dest, Secret.of(tree, artifact))
    if leaks:
        raise InfrastructureError(f"{dest}: the sealed tree leaks: {'; '.join(leaks[:5])}")


def sealed_environment(environment: Environment) -> Environment:
    """The environment for a solver that may look round: without the original's byte code."""
    folder = environment.variables.get("PYTHONPYCACHEPREFIX")
    if folder is None:
        return environment
    mounts = {host: inside for host, inside in environment.mounts.items() if inside != folder}
    variables = {k: v for k, v in environment.variables.items() if k != "PYTHONPYCACHEPREFIX"}
    digest = f"{environment.digest}-sealed"
    return replace(environment, mounts=mounts, variables=variables, digest=digest)


def _commit(dest: Path) -> None:
    run_git(dest, "init", "-q", "-b", "main", "--template=")
    run_git(dest, "config", "core.logAllRefUpdates", "false")
    run_git(dest, "add", "-A", "-f")
    author = ["-c", "user.name=selfplay", "-c", "user.email=selfplay@localhost"]
    run_git(dest, *author, "commit", "-q", "--no-verify", "--no-gpg-sign", "-m", "Initial commit")
