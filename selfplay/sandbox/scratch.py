"""Folders that carry one job's files in and out, and never outlive the process."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from selfplay.cache import cache_root
from selfplay.errors import EXHAUSTED, PatchError, SandboxError
from selfplay.sandbox.base import Job
from selfplay.sandbox.host import check_reachable, make_readable
from selfplay.sandbox.owner import is_abandoned, owner_token
from selfplay.types import Layer

log = logging.getLogger(__name__)
MAX_FILES = 64
TMP_SIZE, SHM_SIZE = 1 << 30, 1 << 28
HOSTNAME = "sandbox"
BASE_VARIABLES = {
    "HOME": "/tmp",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Scratch:
    """One directory of this process below `root`; job folders in it belong to the sandbox uid."""

    def __init__(self, root: Path | None = None) -> None:
        root = root or cache_root() / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        check_reachable(root)
        for entry in root.iterdir():
            if is_abandoned(entry.name):
                end_orphans(entry)
                remove_tree(entry)
        self.path = Path(tempfile.mkdtemp(prefix=f"{owner_token()}-", dir=root))
        self.path.chmod(0o755)

    def empty_folder(self, prefix: str = "tmp") -> Path:
        """A new folder, gone at `close` at the latest."""
        try:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=self.path))
        except OSError as error:
            raise SandboxError(f"no folder for a job in {self.path}: {error}") from error

    @contextmanager
    def folder(self, job: Job) -> Iterator[Path]:
        """A folder with `out/`, `stdin` and, unless they would be empty, `layer/` and `in/` for one
        job; gone afterwards."""
        folder = self.empty_folder()
        try:
            try:
                _fill(folder, job)
            except OSError as error:
                raise SandboxError(f"cannot write the files of a job: {error}") from error
            yield folder
        finally:
            remove_tree(folder)

    def close(self) -> None:
        """Remove everything. Idempotent."""
        end_orphans(self.path)
        remove_tree(self.path)


@contextmanager
def machine_errors(what: str) -> Iterator[None]:
    """What the system refuses us (descriptors, processes, disk) as `SandboxError`, which says
    `what` it spoilt."""
    try:
        yield
    except OSError as error:
        raise SandboxError(f"{what}: {error}") from error


def end_orphans(folder: Path) -> None:
    """End sandboxes with files of `folder` that nobody waits for. Bubblewrap's second process
    waits for its first to make the namespaces, and only then dies with it: where that one was
    killed before, it would wait for ever."""
    inside = os.fsencode(folder) + b"/"
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            program, *words = file.read_bytes().split(b"\0")
            if program.endswith(b"bwrap") and any(word.startswith(inside) for word in words):
                os.kill(int(file.parent.name), signal.SIGKILL)


def _fill(folder: Path, job: Job) -> None:
    (folder / "out").mkdir()
    if job.layer:
        (folder / "layer").mkdir()
        write_layer(job.layer, folder / "layer")
    if job.inputs:
        (folder / "in").mkdir()
    for name, content in job.inputs.items():
        (folder / "in" / check_relative(name)).write_bytes(content)
    (folder / "stdin").write_bytes(job.stdin)
    make_readable(folder)


def write_layer(layer: Layer, target: Path) -> None:
    """Write the changed files of a layer below `target`.

    The modification time is a whole second that the content determines, far in the past: compiled
    byte code of another state (which names its source's time and size) can never match it.
    """
    for path, change in layer.items():
        check_relative(path)
        if change.content is None:
            continue
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(change.content)
        file.chmod(0o755 if change.executable else 0o644)
        stamp = 1_000_000_000 + zlib.crc32(change.content) % 500_000_000
        os.utime(file, (stamp, stamp))


def check_relative(path: str) -> str:
    """The path itself; `PatchError` when it would leave the folder it is meant for."""
    parts = PurePosixPath(path).parts
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise PatchError(f"path {path!r} is no name of a file") from None
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise PatchError(f"path {path!r} leaves the sandbox's tree: use a plain relative path")
    return path


def deleted_paths(layer: Layer) -> list[str]:
    """Deleted paths that no written file of the same layer covers or lies below."""
    written = [path for path, change in layer.items() if change.content is not None]
    parents = {str(parent) for path in written for parent in PurePosixPath(path).parents}
    hidden = set(written)
    return [
        path
        for path, change in layer.items()
        if change.content is None
        and path not in parents
        and not any(str(parent) in hidden for parent in PurePosixPath(path).parents)
    ]


def covered_paths(tree: Path, layer: Layer) -> list[str]:
    """Paths of the tree that a layer's files replace by something of another kind (a file by a
    directory, or the other way round): a copy must remove them first, an overlay hides them."""
    found: dict[str, None] = {}
    for path, change in layer.items():
        if change.content is None:
            continue
        place = tree / path
        if place.is_symlink() or place.is_dir():
            found[path] = None
        for parent in PurePosixPath(path).parents:
            place = tree / parent
            if place.is_symlink() or place.is_file():
                found[str(parent)] = None
    return list(found)


def read_out(out: Path, room: int) -> dict[str, bytes]:
    """Plain files of /out by name, links and special files left out, `room` bytes in all.

    Raises `SandboxError` where it is the machine that cannot read them: a missing report is one
    that the job did not write.
    """
    files: dict[str, bytes] = {}
    try:
        out.chmod(0o755)  # an ordinary user's command may have closed it
        names = sorted(entry.name for entry in out.iterdir())[: 4 * MAX_FILES]
        for name in names:
            content = _plain_file(out / name, room)
            if content is not None:
                files[name] = content
                room -= len(content)
            if len(files) == MAX_FILES:
                break
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise SandboxError(f"files of a job cannot be read: {error}") from error
        return {}
    return files


def _plain_file(path: Path, room: int) -> bytes | None:
    """Content of what the job left; None for what is no plain file, is closed or is too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > room:
        os.close(fd)
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(room)


def etc_files(uid: int) -> dict[str, str]:
    """Files of /etc that programs look up: the user they run as, and `localhost` without DNS."""
    return {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\nsandbox:x:{uid}:{uid}::/tmp:/bin/sh\n",
        "group": f"root:x:0:\nsandbox:x:{uid}:\n",
        "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "resolv.conf": "",
    }


def root_links(mounts: Mapping[str, str]) -> dict[str, str]:
    """Mounts that are links at the host's root (/bin -> usr/bin): path -> target. They are made
    again inside instead of mounted: every mount slows each run."""
    return {
        inside: str(Path(source).readlink())
        for source, inside in sorted(mounts.items())
        if source == inside and Path(source).parent == Path("/") and Path(source).is_symlink()
    }


def write_etc(folder: Path, uid: int, copied: Mapping[str, str]) -> Path:
    """An /etc below `folder`: `etc_files` and the small host files or folders of `copied` (host
    path -> path inside), copied because every further mount slows each run; the directory."""
    etc = folder / "etc"
    etc.mkdir()
    for name, text in etc_files(uid).items():
        (etc / name).write_text(text)
    for source, inside in copied.items():
        target = folder / inside.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if Path(source).is_dir():
                shutil.copytree(source, target, symlinks=True)
            else:
                shutil.copyfile(source, target)
        except OSError as error:
            raise SandboxError(f"cannot read {source} of the environment: {error}") from error
    make_readable(folder)
    return etc


def remove_tree(path: Path) -> None:
    """Remove a tree that untrusted code wrote to: no links followed, closed directories opened,
    and however deep it is (what Python walks by recursion, the tools below do not)."""
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    for argv in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*argv, "--", str(path)], capture_output=True, check=False)
    if path.exists():
        log.warning("%s could not be removed", path)
