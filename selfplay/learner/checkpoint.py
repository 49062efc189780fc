"""Checkpoints that are whole or absent: temporary name, fsync, rename.

    <directory>/step_7       /trainer.pt    masters, optimizer, scheduler position, random state
                           /extra.json    whatever else the caller resumes from
                           /manifest.json sizes and checksums, written last

A directory without a manifest that agrees with its files is torn: it is skipped, never loaded.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from selfplay.errors import UserError
from selfplay.learner.trainer import Trainer

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d+)")
_FILES = ("trainer.pt", "extra.json")
_MANIFEST = "manifest.json"


def save(
    directory: Path, step: int, trainer: Trainer, extra: Mapping[str, Any], *, keep_last: int = 2
) -> Path:
    """Write the checkpoint of `step`, then delete all but the `keep_last` newest."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"step_{step}"
    temporary = directory / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    torch.save(trainer.state_dict(), temporary / "trainer.pt")
    (temporary / "extra.json").write_text(json.dumps(dict(extra), indent=2) + "\n")
    manifest = {name: _fingerprint(temporary / name) for name in _FILES}
    (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for name in (*_FILES, _MANIFEST):
        _fsync(temporary / name)
    _fsync(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    _fsync(directory)
    prune(directory, keep_last)
    return target


def load(path: Path, trainer: Trainer) -> dict[str, Any]:
    """Restore `trainer` from a checkpoint; the extra data that was saved with it."""
    if not is_whole(path):
        raise UserError(f"{path}: not a whole checkpoint; name another one or start a new run")
    state = torch.load(path / "trainer.pt", weights_only=True)
    trainer.load_state_dict(state)
    extra = json.loads((path / "extra.json").read_text())
    assert isinstance(extra, dict)
    return extra


def latest(directory: Path) -> Path | None:
    """The newest whole checkpoint; torn ones are skipped with a warning."""
    for path in reversed(_checkpoints(directory)):
        if is_whole(path):
            return path
        log.warning("%s is torn and is skipped", path)
    return None


def step_of(path: Path) -> int:
    """The step that a checkpoint's name carries."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise UserError(f"{path}: a checkpoint is named like step_7")
    return int(match.group(1))


def prune(directory: Path, keep_last: int) -> None:
    """Delete all but the newest `keep_last` checkpoints, and what killed writers left."""
    for path in _checkpoints(directory)[: -max(keep_last, 1)]:
        shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(".step_*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def is_whole(path: Path) -> bool:
    """Whether the manifest is there and agrees with every file."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        return set(manifest) == set(_FILES) and all(
            _fingerprint(path / name) == manifest[name] for name in _FILES
        )
    except (OSError, ValueError, TypeError):
        return False


def _checkpoints(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def _fingerprint(path: Path) -> dict[str, int]:
    checksum = 0
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            checksum = zlib.crc32(piece, checksum)
    return {"size": path.stat().st_size, "crc32": checksum}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
