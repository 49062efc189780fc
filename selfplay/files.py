"""Writing files so that a kill at any moment leaves the old content, the new one, or a clean tail;
locks on files, which a process that died does not hold.

JSON is written as ASCII: text with lone surrogates (bytes that are not UTF-8) survives unchanged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.errors import InfrastructureError, UserError

_DYING_S = 5.0
"""How long a lock may outlive who took it."""


def at_home(text: str) -> str:
    """A path whose ~ or ~NAME is replaced by that home, where there is one."""
    try:
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except RuntimeError:  # nobody of that name, or a user without a home
        return text


def make_folder(path: Path) -> None:
    """Make a folder, and see that files can be made in it. Raises `OSError`."""
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(tempfile.TemporaryFile(dir=path)):
        pass


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary name, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InfrastructureError(f"{path}: cannot be written ({error.strerror})") from error


def append_json_lines(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Append one line for each document and fsync.

    A write that fails (disk full) is taken back. Raises `InfrastructureError`.
    """
    data = b"".join(encode_json(document) + b"\n" for document in documents)
    if not data:
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InfrastructureError(f"{path}: cannot be written ({error.strerror})") from error


def repair_json_lines(path: Path, torn: Path) -> bool:
    """Move a last line without its newline to the end of `torn`; True when there was one.

    A kill inside a write leaves nothing else behind. A last line that is whole but for the newline
    stays, and gets it.
    """
    if not path.exists():
        return False
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        tail = _last_piece(stream.fileno(), size)
        if not tail:
            return False
        if _is_object(tail):
            stream.write(b"\n")
            os.fsync(stream.fileno())
            return False
        torn.parent.mkdir(parents=True, exist_ok=True)
        with torn.open("ab") as kept:
            kept.write(tail + b"\n")
            kept.flush()
            os.fsync(kept.fileno())
        stream.truncate(size - len(tail))
        os.fsync(stream.fileno())
    return True


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line; a torn last line is left out.

    Raises `UserError` naming file and line for any other line that is no JSON object.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                document = json.loads(line)
            except ValueError:
                document = None
            if isinstance(document, dict):
                yield number, document
            elif line.endswith(b"\n"):
                raise UserError(f"{path}:{number}: not a JSON object; restore or remove that line")


def encode_json(document: Any) -> bytes:
    """One line of strict JSON; numbers that are not finite become null."""
    try:
        text = json.dumps(document, allow_nan=False, separators=(", ", ": "))
    except ValueError:
        text = json.dumps(finite(document), allow_nan=False, separators=(", ", ": "))
    return text.encode("ascii")


def finite(value: Any) -> Any:
    """A copy of a JSON document where numbers that are not finite are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def take_lock(path: Path, what: str) -> int:
    """Exclusive lock on a file, as an open descriptor; closing it, or dying, gives it back.

    Raises `UserError` when another process holds it. Where that one is dead, what it had forked
    dies in a moment, too, and is waited for.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + _DYING_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            if not _is_dead(owner) or time.monotonic() > deadline:
                os.close(descriptor)
                raise UserError(
                    f"{what}: in use by process {owner}; wait for it or end it, "
                    "or choose another directory"
                ) from None
        time.sleep(0.02)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _is_dead(owner: str) -> bool:
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        pass
    return False


@contextlib.contextmanager
def held_lock(path: Path, what: str) -> Iterator[None]:
    """`take_lock` for the length of a block; its folder is made.

    Raises `UserError` also where nothing can be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = take_lock(path, what)
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Exclusive lock on a file, waiting for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _last_piece(descriptor: int, size: int) -> bytes:
    """What follows the last newline, read backwards in pieces."""
    tail, position = b"", size
    while position > 0:
        start = max(0, position - (1 << 16))
        piece = os.pread(descriptor, position - start, start)
        _, newline, rest = piece.rpartition(b"\n")
        if newline:
            return rest + tail
        tail, position = piece + tail, start
    return tail


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
