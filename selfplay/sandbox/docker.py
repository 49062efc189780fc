"""The Docker sandbox: one hardened container for each job, always removed.

The container sees the same root as bubblewrap's sandbox: `Environment.mounts` are bound read-only
over an image of empty directories (imported from memory: no registry is needed), or it starts
from `Environment.image`. The tree and the layer are copied into a sized tmpfs at `WORKDIR`. Output
leaves through a named pipe, in order and without a log on disk; the engine must therefore run on
this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound
from docker.types import LogConfig, Mount, Ulimit
from requests.exceptions import RequestException

from selfplay.errors import SandboxError
from selfplay.sandbox.base import WORKDIR, Job, RunResult
from selfplay.sandbox.collect import KILL_GRACE_S, Collected, collect, out_excess
from selfplay.sandbox.host import sandbox_uid
from selfplay.sandbox.owner import is_abandoned, owner_token
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    HOSTNAME,
    Scratch,
    covered_paths,
    deleted_paths,
    read_out,
    root_links,
    write_etc,
)

log = logging.getLogger(__name__)

LABEL = "selfplay.owner"
IMAGE = "selfplay-empty"
DIRECTORIES = "bin dev etc in lib lib32 lib64 out proc sandbox sbin sys testbed tmp usr"
TMP_SIZE, TREE_SIZE, SHM_SIZE = 1 << 30, 2 << 30, 1 << 28
ENTRY = f"""
exec >/sandbox/output 2>&1 </sandbox/stdin || exit 1
cp -a /sandbox/tree/. {WORKDIR}/ || exit 1
n=$1; shift
while [ "$n" -gt 0 ]; do rm -rf -- "$1" || exit 1; shift; n=$((n-1)); done
if [ -d /sandbox/layer ]; then cp -a /sandbox/layer/. {WORKDIR}/ || exit 1; fi
echo ready >/sandbox/ready || exit 1
"$@"
"""
"""Takes the number of paths to remove, the paths, the command. The shell stays the container's
first process, so that the command has ordinary signals; what it starts dies with the shell."""


class DockerSandbox:
    """One fresh container for each job. `SandboxError` when no engine of this machine answers."""

    name = "docker"

    def __init__(self, scratch: Path | None = None) -> None:
        try:
            self._client = docker.from_env(timeout=60, max_pool_size=64)
            self.description = f"engine {self._client.version()['Version']}"
        except DockerException as error:
            raise SandboxError(
                f"no Docker engine answers ({error}): start dockerd or set DOCKER_HOST"
            ) from error
        self._token = owner_token()
        self._scratch = Scratch(scratch)
        self._lock = threading.Lock()
        self._etc: dict[str, Path] = {}
        self._images: set[str] = set()
        with _engine_errors("cannot clean up"):
            self._remove_containers(is_abandoned)

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot (see `sandbox.base.Sandbox`)."""
        with self._scratch.folder(job) as folder, _pipes(folder) as (output, ready):
            with _engine_errors("the container could not be started"):
                container = self._create(job, folder)
            try:
                with _engine_errors("the container could not be started"):
                    container.start()
                return self._follow(job, folder, container, output, ready)
            finally:
                self._remove(container)

    def close(self) -> None:
        """Remove the containers that are left, and the scratch directory. Idempotent."""
        with suppress(DockerException, RequestException):
            self._remove_containers(lambda token: token == self._token)
        self._client.close()
        self._scratch.close()

    def _follow(self, job: Job, folder: Path, container: Any, output: int, ready: int) -> RunResult:
        codes: list[int] = []
        limit_s = job.quota.timeout_s + 2 * KILL_GRACE_S
        gone, end = os.pipe()
        waiter = threading.Thread(target=_wait, args=(container, limit_s, codes, end), daemon=True)
        waiter.start()
        try:
            ending = collect(
                output,
                gone,
                job.quota,
                lambda: _kill(container),
                lambda: out_excess(folder / "out", job.quota),
            )
        except SandboxError:
            _kill(container)
            raise
        finally:
            waiter.join(timeout=1.0)
            os.close(gone)
        return _result(job, folder, ending, codes, started=_is_ready(ready))

    def _create(self, job: Job, folder: Path) -> Any:
        quota, uid = job.quota, sandbox_uid()
        variables = {**BASE_VARIABLES, "PATH": job.environment.path}
        tmpfs = f"rw,exec,nosuid,nodev,uid={uid},gid={uid}"
        removed = [*deleted_paths(job.layer), *covered_paths(job.environment.tree, job.layer)]
        return self._client.containers.create(
            job.environment.image or self.empty_image(root_links(job.environment.mounts)),
            ["-c", ENTRY, "sh", str(len(removed)), *removed, *job.argv],
            entrypoint=["/bin/sh"],
            user=f"{uid}:{uid}",
            working_dir=WORKDIR,
            hostname=HOSTNAME,
            environment={**variables, **job.environment.variables, **job.variables},
            labels={LABEL: self._token},
            mounts=self._mounts(job, folder),
            tmpfs={
                WORKDIR: f"{tmpfs},mode=0755,size={TREE_SIZE}",
                "/tmp": f"{tmpfs},mode=1777,size={TMP_SIZE}",
            },
            network_mode="none",
            ipc_mode="private",
            shm_size=SHM_SIZE,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=quota.memory,
            memswap_limit=quota.memory,
            pids_limit=quota.num_processes,
            ulimits=[
                Ulimit(name=name, soft=value, hard=value)
                for name, value in quota.limits().items()
                if name not in ("nproc", "as")  # the container's own bounds are real ones
            ],
            log_config=LogConfig(type="none"),
            stdin_open=False,
            tty=False,
        )

    def _mounts(self, job: Job, folder: Path) -> list[Mount]:
        def bind(source: str | Path, target: str, *, read_only: bool = True) -> Mount:
            return Mount(target, str(source), type="bind", read_only=read_only)

        mounts = [
            bind(folder / "sandbox", "/sandbox"),
            bind(job.environment.tree, "/sandbox/tree"),
            bind(folder / "out", "/out", read_only=False),
        ]
        if job.layer:
            mounts.append(bind(folder / "layer", "/sandbox/layer"))
        if job.inputs:
            mounts.append(bind(folder / "in", "/in"))
        environment = dict(job.environment.mounts)
        if job.environment.image is None and "/etc" not in environment.values():
            etc = self._etc_folder(environment)
            mounts.append(bind(etc, "/etc"))
            environment = {s: i for s, i in environment.items() if not i.startswith("/etc/")}
        if job.environment.image is None:
            links = root_links(environment)
            environment = {s: i for s, i in environment.items() if i not in links}
        return mounts + [bind(source, inside) for source, inside in environment.items()]

    def _etc_folder(self, mounts: dict[str, str]) -> Path:
        copied = {s: i for s, i in mounts.items() if i.startswith("/etc/")}
        with self._lock:
            key = str(sorted(copied.items()))
            if key not in self._etc:
                folder = self._scratch.path / f"mounts-{len(self._etc)}"
                folder.mkdir()
                etc = write_etc(folder, sandbox_uid(), copied)
                for name in ("hosts", "hostname", "resolv.conf"):
                    (etc / name).touch()  # the engine mounts its own over them
                self._etc[key] = etc
            return self._etc[key]

    def empty_image(self, links: Mapping[str, str] = MappingProxyType({})) -> str:
        """The image of empty directories and of `links` (path -> target), imported once; its
        name."""
        content = _empty_directories(links)
        name = f"{IMAGE}:{hashlib.sha256(content).hexdigest()[:12]}"
        with self._lock:
            if name not in self._images:
                try:
                    self._client.images.get(name)
                except ImageNotFound:
                    repository, tag = name.split(":")
                    self._client.api.import_image_from_data(content, repository, tag)
                self._images.add(name)
        return name

    def _remove_containers(self, chosen: Callable[[str], bool]) -> None:
        for container in self._client.containers.list(
            all=True, filters={"label": LABEL}, ignore_removed=True
        ):
            if chosen(container.labels.get(LABEL, "")):
                self._remove(container)

    @staticmethod
    def _remove(container: Any) -> None:
        try:
            container.remove(force=True, v=True)
        except (DockerException, RequestException) as error:
            log.warning("container %s could not be removed: %s", container.short_id, error)


def _wait(container: Any, job_s: float, codes: list[int], end: int) -> None:
    """In a thread: append the exit code, then close `end`, whatever happens."""
    try:
        codes.append(int(container.wait(timeout=job_s)["StatusCode"]))
    except (DockerException, RequestException) as error:
        log.warning("lost sight of container %s: %s", container.short_id, error)
    finally:
        os.close(end)


def _kill(container: Any) -> None:
    with suppress(DockerException, RequestException):  # it may have ended by itself
        container.kill()


def _result(
    job: Job, folder: Path, ending: Collected, codes: list[int], *, started: bool
) -> RunResult:
    if not codes or not started:
        said = ending.output[-400:].decode(errors="replace").strip()
        raise SandboxError(f"the container failed before the command (exit {codes}): {said}")
    return RunResult(
        exit_code=None if ending.timed_out else codes[0],
        timed_out=ending.timed_out,
        output=ending.annotated(),
        output_truncated=ending.truncated,
        duration_s=ending.duration_s,
        files={} if ending.stopped else read_out(folder / "out", job.quota.output),
    )


def _is_ready(fd: int) -> bool:
    """Whether the entry script reached the command: it wrote a line before it."""
    try:
        return os.read(fd, 64).startswith(b"ready")
    except BlockingIOError:
        return False


@contextmanager
def _pipes(folder: Path) -> Iterator[tuple[int, int]]:
    """Named pipes `output` and `ready` in `folder`/sandbox, open for reading here; inside they can
    only be written, so that the command cannot take back what was said."""
    place = folder / "sandbox"
    place.mkdir()
    (folder / "stdin").rename(place / "stdin")
    for name in ("tree", *(["layer"] if (folder / "layer").is_dir() else [])):
        (place / name).mkdir()  # mount points
    with contextlib.ExitStack() as stack:
        fds = []
        for name in ("output", "ready"):
            os.mkfifo(place / name)
            fds.append(os.open(place / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
            (place / name).chmod(0o200)
            if os.geteuid() == 0:
                os.chown(place / name, sandbox_uid(), sandbox_uid())
        place.chmod(0o755)
        yield fds[0], fds[1]


@contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, RequestException) as error:
        raise SandboxError(f"Docker: {what}: {error}") from error


def _empty_directories(links: Mapping[str, str]) -> bytes:
    """A tar archive of empty directories and root links: the whole image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted({*DIRECTORIES.split(), *(link[1:] for link in links)}):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            if f"/{name}" in links:
                entry.type, entry.linkname = tarfile.SYMTYPE, links[f"/{name}"]
            archive.addfile(entry)
    return buffer.getvalue()
