"""The Docker sandbox: one hardened container for each job, always removed.

Containers are started before their job comes and wait for it (`docker_workers`). A container sees
the same root as bubblewrap's sandbox: `Environment.mounts` are bound read-only over an image of
empty directories (imported from memory: no registry is needed), or it starts from
`Environment.image`. The tree and the layer are copied into a sized tmpfs at `WORKDIR`. Output
leaves through a named pipe, in order and without a log on disk; the engine must therefore run on
this machine, its processes visible to ours.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit
from requests.exceptions import RequestException

from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.base import WORKDIR, Job, RunResult
from selfplay.sandbox.collect import KILL_GRACE_S, collect, out_excess
from selfplay.sandbox.docker_images import empty_directories
from selfplay.sandbox.docker_workers import ENTRY, Blueprint, Channel, WarmWorkers, job_script
from selfplay.sandbox.host import make_readable, sandbox_uid
from selfplay.sandbox.images import ImageFacts
from selfplay.sandbox.owner import is_abandoned
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    HOSTNAME,
    Scratch,
    read_out,
    remove_tree,
    root_links,
    write_etc,
)

log = logging.getLogger(__name__)

LABEL = "selfplay.owner"
IMAGE = "selfplay-empty"
TMP_SIZE, TREE_SIZE, SHM_SIZE = 1 << 30, 2 << 30, 1 << 28
START_TIMEOUT_S = 60.0
GO_MODE_DIR = 1 << 31
"""The bit of a directory in the engine's file modes."""


class DockerSandbox:
    """One fresh container for each job, up to `num_workers` (None: all cores) of a kind waiting.

    `runtime` is what the engine runs them with (None: its default). `SandboxError` when no engine
    of this machine answers, `UserError` when it does not know the runtime.
    """

    name = "docker"

    def __init__(
        self,
        scratch: Path | None = None,
        num_workers: int | None = None,
        runtime: str | None = None,
    ) -> None:
        try:
            self._client = docker.from_env(timeout=60, max_pool_size=64)
            self.description = f"engine {self._client.version()['Version']}"
        except DockerException as error:
            raise SandboxError(
                f"no Docker engine answers ({error}): start dockerd or set DOCKER_HOST"
            ) from error
        self._runtime = runtime
        if runtime is not None:
            self._check_runtime(runtime)
        self._scratch = Scratch(scratch)
        self._token = self._scratch.path.name  # names this process and this sandbox
        self._lock = threading.Lock()
        self._etc: dict[str, Path] = {}
        self._images: set[str] = set()
        self._workers = WarmWorkers(self._start, num_workers or os.cpu_count() or 1)
        with _engine_errors("cannot clean up"):
            self._remove_containers(is_abandoned)

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot (see `sandbox.base.Sandbox`)."""
        script = job_script(job)
        with self._scratch.folder(job) as files:
            worker = self._workers.take(Blueprint.of(job))
            try:
                return worker.run(job, script, files)
            finally:
                self._workers.discard(worker)

    def close(self) -> None:
        """Remove the containers that are left, and the scratch directory. Idempotent."""
        self._workers.close()
        with suppress(DockerException, RequestException):
            self._remove_containers(lambda token: token == self._token)
        self._client.close()
        self._scratch.close()

    def _check_runtime(self, runtime: str) -> None:
        with _engine_errors("the engine does not say which runtimes it knows"):
            known = sorted(self._client.info().get("Runtimes") or {})
        if runtime not in known:
            self._client.close()
            raise UserError(
                f"sandbox.runtime={runtime}: the Docker engine knows {', '.join(known)}; install "
                f"it and register it with the engine (gVisor: runsc install -- --host-fifo=open, "
                "then restart dockerd), or leave sandbox.runtime out"
            )

    def _start(self, blueprint: Blueprint) -> DockerWorker:
        """A container that has its copy of the tree and waits."""
        folder = self._scratch.empty_folder()
        worker = DockerWorker(folder)
        try:
            with _engine_errors("the container could not be started"):
                worker.start(self._create(blueprint, folder))
        except SandboxError:
            worker.remove()
            raise
        return worker

    def _create(self, blueprint: Blueprint, folder: Path) -> Any:
        uid = sandbox_uid()
        tmpfs = f"rw,exec,nosuid,nodev,uid={uid},gid={uid}"
        links = root_links(dict(blueprint.mounts))
        return self._client.containers.create(
            blueprint.image or self.empty_image(links),
            ["-c", ENTRY, "sh", folder.name],
            entrypoint=["/bin/sh"],
            user=f"{uid}:{uid}",
            working_dir=WORKDIR,
            hostname=HOSTNAME,
            environment={**BASE_VARIABLES, "PATH": blueprint.path},
            labels={LABEL: self._token},
            mounts=self._mounts(blueprint, folder),
            tmpfs={
                WORKDIR: f"{tmpfs},mode=0755,size={TREE_SIZE}",
                "/tmp": f"{tmpfs},mode=1777,size={TMP_SIZE}",
            },
            runtime=self._runtime,
            network_mode="none",
            ipc_mode="private",
            shm_size=SHM_SIZE,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit=blueprint.memory,
            memswap_limit=blueprint.memory,
            pids_limit=blueprint.num_processes,
            ulimits=[Ulimit(name=n, soft=value, hard=value) for n, value in blueprint.limits],
            log_config=LogConfig(type="none"),
            stdin_open=False,
            tty=False,
        )

    def _mounts(self, blueprint: Blueprint, folder: Path) -> list[Mount]:
        def bind(source: str | Path, target: str, *, read_only: bool = True) -> Mount:
            return Mount(target, str(source), type="bind", read_only=read_only)

        mounts = [
            bind(folder / "sandbox", "/sandbox"),
            bind(blueprint.tree, "/sandbox/below/tree"),
            bind(folder / "in", "/in"),
            bind(folder / "out", "/out", read_only=False),
        ]
        environment = dict(blueprint.mounts)
        if blueprint.image is None and "/etc" not in environment.values():
            etc = self._etc_folder(environment)
            mounts.append(bind(etc, "/etc"))
            environment = {s: i for s, i in environment.items() if not i.startswith("/etc/")}
        if blueprint.image is None:
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
        content = empty_directories(links)
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

    def find_image(self, name: str) -> ImageFacts:
        """An image by name (see `sandbox.images.ImageStore`)."""
        with _engine_errors(f"image {name}"):
            try:
                image = self._client.images.get(name)
            except ImageNotFound:
                log.info("pulling %s", name)
                try:
                    image = self._client.images.pull(name)
                except DockerException as error:
                    raise UserError(
                        f"image {name}: neither on this engine nor to be pulled ({error}): "
                        "name one that `docker image ls` or a registry knows"
                    ) from error
        variables = (image.attrs.get("Config") or {}).get("Env") or []
        return ImageFacts(id=str(image.id), variables=dict(v.split("=", 1) for v in variables))

    def copy_from_image(self, image: str, path: str, archive: Path, max_bytes: int) -> None:
        """A directory of an image as a tar file (see `sandbox.images.ImageStore`)."""
        with _engine_errors(f"cannot copy {path} out of image {image}"):
            container = self._client.containers.create(
                image, ["/never-started"], labels={LABEL: self._token}, network_mode="none"
            )
            try:
                stream, status = container.get_archive(path)
                if status is None or not status["mode"] & GO_MODE_DIR:
                    raise UserError(f"image {image}: {path} is no directory; name another workdir")
                with archive.open("wb") as file:
                    for chunk in stream:
                        file.write(chunk)
                        if file.tell() > max_bytes:
                            raise SandboxError(
                                f"image {image}: {path} holds more than {max_bytes >> 20} MiB"
                            )
            except NotFound:
                raise UserError(f"image {image}: has no {path}; name another workdir") from None
            finally:
                _remove(container)

    def _remove_containers(self, chosen: Callable[[str], bool]) -> None:
        for container in self._client.containers.list(
            all=True, filters={"label": LABEL}, ignore_removed=True
        ):
            if chosen(container.labels.get(LABEL, "")):
                _remove(container)


class DockerWorker:
    """One container: started, waits, runs one job, is removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("in", "out"):
            (folder / name).mkdir()
        make_readable(folder)
        self._channel = Channel(folder / "sandbox")
        self._container: Any = None
        self._init: int | None = None

    def start(self, container: Any) -> None:
        """Start a created container and return when it waits. `SandboxError`, Docker's errors."""
        self._container = container
        container.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"waiting" not in self._channel.hear(timeout_s=1.0):
            container.reload()
            late = time.monotonic() > deadline
            if late or container.status != "running" or not self._channel.is_connected():
                raise self._failure()
        container.reload()
        self._init = _open_init(container, self._folder.name)
        self._channel.shut_below()

    def is_waiting(self) -> bool:
        """Whether it can still take a job."""
        return self._channel.is_connected()

    def run(self, job: Job, script: bytes, files: Path) -> RunResult:
        """Hand over a job and follow it to its end; `files` is its folder of `Scratch`."""
        assert self._init is not None
        if job.inputs:
            for entry in (files / "in").iterdir():
                entry.rename(self._folder / "in" / entry.name)
        self._channel.release(script, files)
        out = self._folder / "out"
        ending = collect(
            self._channel.output,
            self._init,
            job.quota,
            self._kill,
            lambda: out_excess(out, job.quota),
        )
        said = self._channel.hear()[1:]
        if b"ready" not in said[:1]:
            raise self._failure(ending.output)
        return RunResult(
            exit_code=None if ending.timed_out else self._exit_code(said[1:]),
            timed_out=ending.timed_out,
            output=ending.annotated(),
            output_truncated=ending.truncated,
            duration_s=ending.duration_s,
            files={} if ending.stopped else read_out(out, job.quota.output),
        )

    def remove(self) -> None:
        """Remove the container and its folder; a failure is logged."""
        self._channel.close()
        if self._init is not None:
            os.close(self._init)
            self._init = None
        if self._container is not None:
            _remove(self._container)
        remove_tree(self._folder)

    def _exit_code(self, said: list[bytes]) -> int:
        """The one code that was said, which comes before the engine's own; the engine's when the
        shell could not say it, or when somebody else spoke too."""
        if len(said) == 1 and (match := re.fullmatch(rb"exit (\d{1,3})", said[0])):
            return int(match[1])
        with _engine_errors("lost sight of a container"):
            return int(self._container.wait(timeout=KILL_GRACE_S)["StatusCode"])

    def _kill(self) -> None:
        with suppress(DockerException, RequestException):  # it may have ended by itself
            self._container.kill()

    def _failure(self, printed: bytes = b"") -> SandboxError:
        said = printed[-400:].decode(errors="replace").strip() or self._channel.read_output()
        with suppress(DockerException, RequestException):
            self._container.reload()
        state = self._container.attrs.get("State", {})
        code = state.get("Error") or state.get("ExitCode")
        return SandboxError(f"the container failed before the command (exit {code}): {said}")


def _open_init(container: Any, name: str) -> int:
    """A pidfd of the container's first process, whose command line (or that of the runtime's
    process that stands for it) names the container's folder or id."""
    pid = int(container.attrs["State"]["Pid"])
    try:
        fd = os.pidfd_open(pid)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError as error:
        raise SandboxError(f"a container has ended before its job ({error})") from error
    if name.encode() not in command and container.id.encode() not in command:
        os.close(fd)
        raise SandboxError("the engine's processes cannot be seen from here: use its pid namespace")
    return fd


def _remove(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except (DockerException, RequestException) as error:
        log.warning("container %s could not be removed: %s", container.short_id, error)


@contextmanager
def _engine_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, RequestException) as error:
        raise SandboxError(f"Docker: {what}: {error}") from error
