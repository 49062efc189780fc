"""Checkpoints that are whole or absent: temporary name, fsync, rename.

    <directory>/step_7       /state/        masters, optimizer, step and random state, as written by
                                          torch.distributed.checkpoint: one file for each rank
                           /extra.json    whatever else the caller resumes from
                           /manifest.json sizes and checksums, written last

A directory without a manifest that agrees with its files is torn: it is skipped, never loaded. Any
number of ranks reads what any number has written; all ranks call `save` and `load` together, and
must see the directory under the same path.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as read_state
from torch.distributed.checkpoint.state_dict_saver import save as write_state

from selfplay.errors import InfrastructureError, UserError
from selfplay.learner.trainer import Trainer

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d+)")
_STATE = "state"
_EXTRA = "extra.json"
_MANIFEST = "manifest.json"
_FORMER = "trainer.pt"


def save(
    directory: Path, step: int, trainer: Trainer, extra: Mapping[str, Any], *, keep_last: int = 2
) -> Path:
    """Write the checkpoint of `step`, then delete all but the `keep_last` newest.

    Raises `InfrastructureError` where it cannot be written; what was there before stays.
    """
    target = directory / f"step_{step}"
    temporary = directory / f".{target.name}.tmp"
    world = trainer.world
    with _boundary(temporary):
        if world.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        world.gather(None)
        writer = FileSystemWriter(temporary / _STATE)
        write_state(
            trainer.state_dict(),
            storage_writer=writer,
            process_group=world.control,
            no_dist=not world.is_sharded,
        )
        if world.is_first:
            _commit(temporary, target, extra)
            prune(directory, keep_last)
    world.gather(None)
    return target


def load(path: Path, trainer: Trainer) -> dict[str, Any]:
    """Restore `trainer` from a checkpoint; the extra data that was saved with it."""
    world = trainer.world
    if not world.broadcast(is_whole(path) if world.is_first else None):
        raise UserError(f"{path}: not a whole checkpoint; name another one or start a new run")
    with _boundary(path):
        reader = FileSystemReader(path / _STATE)
        stored = reader.read_metadata().state_dict_metadata
        shapes = {n: e.size for n, e in stored.items() if isinstance(e, TensorStorageMetadata)}
        state = trainer.empty_state(shapes)
        read_state(
            state,
            storage_reader=reader,
            process_group=world.control,
            no_dist=not world.is_sharded,
        )
    trainer.load_state_dict(state)
    return extra(path)


def extra(path: Path) -> dict[str, Any]:
    """The extra data of a whole checkpoint."""
    found = json.loads((path / _EXTRA).read_text())
    assert isinstance(found, dict)
    return found


def latest(directory: Path, after: int = -1) -> Path | None:
    """The newest whole checkpoint of a step behind `after`; torn ones are skipped with a warning,
    earlier ones are not read."""
    for path in reversed(_checkpoints(directory)):
        if step_of(path) <= after:
            return None
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
    """Whether the manifest is there and agrees with every file.

    Raises `UserError` for a checkpoint of the former format.
    """
    if (path / _FORMER).exists():
        raise UserError(
            f"{path}: written by an earlier version ({_FORMER}), which this one does not read; "
            "finish the run with that version, or start another with name=..."
        )
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        return {_EXTRA, f"{_STATE}/.metadata"} <= set(manifest) and all(
            _fingerprint(path / name) == known for name, known in manifest.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _commit(temporary: Path, target: Path, extra: Mapping[str, Any]) -> None:
    """Manifest, fsync, rename: from here on the checkpoint exists."""
    (temporary / _EXTRA).write_text(json.dumps(dict(extra), indent=2) + "\n")
    names = [_EXTRA, *(f"{_STATE}/{file.name}" for file in sorted((temporary / _STATE).iterdir()))]
    manifest = {name: _fingerprint(temporary / name) for name in names}
    (temporary / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    for name in (*names, _STATE, _MANIFEST, "."):
        _fsync(temporary / name)
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
    _fsync(target.parent)


@contextmanager
def _boundary(path: Path) -> Iterator[None]:
    """Failures of any rank in reading or writing are faults of the machine, on all of them."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        causes = [str(failure[0]) for failure in error.failures.values()]
        raise InfrastructureError(f"{path}: {'; '.join(causes)}") from None
    except OSError as error:
        raise InfrastructureError(f"{path}: {error.strerror or error}") from error


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
