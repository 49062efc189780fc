"""What a solver gets: bug and weakening applied, history and every copy of the original removed.

`seal` is the one place where it is made; every scaffold takes it, and the leak audit looks at it.
Grading never reads it; it restores from the original tree (docs/validation.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from selfplay.bugs.leaks import is_leaky, list_files
from selfplay.bugs.patches.layers import apply_patch
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, FileChange, Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """The environment and the state of the code that a solver of one bug gets."""

    environment: Environment
    layer: Layer


def seal(environment: Environment, artifact: BugArtifact) -> Sealed:
    """What a solver of this bug gets. Raises `PatchError` when a patch does not apply."""
    return Sealed(
        environment=sealed_environment(environment),
        layer=sealed_layer(environment.tree, artifact),
    )


def sealed_layer(tree: Path, artifact: BugArtifact) -> Layer:
    """Original tree -> what the solver sees. Raises `PatchError` when a patch does not apply."""
    bug = apply_patch(tree, {}, artifact.bug_patch)
    sealed = dict(apply_patch(tree, bug, artifact.weakening_patch))
    for path in list_files(tree):
        if is_leaky(path):
            sealed[path] = FileChange(content=None)
    return sealed


def sealed_environment(environment: Environment) -> Environment:
    """The environment of every solver of a repository: no byte code of the original."""
    folder = environment.variables.get("PYTHONPYCACHEPREFIX")
    if folder is None:
        return environment
    mounts = {host: inside for host, inside in environment.mounts.items() if inside != folder}
    variables = {k: v for k, v in environment.variables.items() if k != "PYTHONPYCACHEPREFIX"}
    digest = f"{environment.digest}-sealed"
    return replace(environment, mounts=mounts, variables=variables, digest=digest)
