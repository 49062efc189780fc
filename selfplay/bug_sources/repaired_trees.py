"""The original of a bug whose source holds the buggy tree, as SWE-bench's and Harbor's tasks do:
gold patch and oracle tests are put on top of it, once, beside the prepared repository."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

from selfplay.bugs.patches.layers import apply_patch, reverse_patch
from selfplay.repo.dependencies.project import add_generated
from selfplay.repo.prepare import PreparedRepo, environment_for, prepare_tree
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import make_readable
from selfplay.types import BugArtifact, Layer


def repaired_environment(prepared: PreparedRepo, artifact: BugArtifact) -> Environment:
    """The environment whose original tree is the repaired one. `PatchError` where a patch does not
    fit the source."""
    base = prepared.environment
    patches = [reverse_patch(p) for p in (artifact.bug_patch, artifact.weakening_patch)]
    key = hashlib.sha256("\0".join(patches).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = base.tree.parent / "repaired" / key
    if not (folder / "tree").is_dir():
        layer: Layer = {}
        for patch in patches:
            layer = apply_patch(base.tree, layer, patch)
        _write(base, layer, folder)
    return environment_for(base, folder / "tree", f"{base.digest}+{key}")


def repaired_repo(
    prepared: PreparedRepo, artifact: BugArtifact, name: str, sandbox: Sandbox
) -> PreparedRepo:
    """The same with its tests discovered there. Raises `PatchError`, `RepoError`."""
    environment = repaired_environment(prepared, artifact)
    spec = dataclasses.replace(prepared.spec, name=name)
    return prepare_tree(spec, environment, environment.tree.parent, sandbox)


def _write(base: Environment, layer: Layer, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tree = partial / "tree"
    shutil.copytree(base.tree, tree, symlinks=True)
    for path, change in layer.items():
        (tree / path).unlink(missing_ok=True)
        if change.content is not None:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(change.content)
            (tree / path).chmod(0o755 if change.executable else 0o644)
    add_generated(base.tree.parent, tree)
    make_readable(partial)
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
