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
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit
from requests.exceptions import RequestException

from selfplay.errors import SandboxError, UserError
from selfplay.placement import num_cores
from selfplay.sandbox.base import WORKDIR, Job, RunResult
from selfplay.sandbox.docker.container import DockerWorker, engine_errors, remove_container
from selfplay.sandbox.docker.empty_image import empty_directories
from selfplay.sandbox.docker.image_store import ImageFacts
from selfplay.sandbox.docker.workers import ENTRY, Blueprint, WarmWorkers, job_script
from selfplay.sandbox.host import sandbox_uid
from selfplay.sandbox.owner import is_abandoned
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    HOSTNAME,
    Scratch,
    root_links,
    write_etc,
)

log = logging.getLogger(__name__)

LABEL = "selfplay.owner"
IMAGE = "selfplay-empty"
TMP_SIZE, TREE_SIZE, SHM_SIZE = 1 << 30, 2 << 30, 1 << 28
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
        self._workers = WarmWorkers(self._start, num_workers or num_cores())
        with engine_errors("cannot clean up"):
            self._remove_containers(is_abandoned)

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot (see `sandbox.base.Sandbox`)."""
        with (
            engine_errors("a job could not be run"),
            self._scratch.folder(job) as files,  # refuses a layer that no disk can hold
        ):
            script = job_script(job)
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
        with engine_errors("the engine does not say which runtimes it knows"):
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
        with engine_errors("the container could not be started"):
            worker = DockerWorker(folder)
        try:
            with engine_errors("the container could not be started"):
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
            extra_hosts={HOSTNAME: "127.0.0.1"},  # an engine without a network names only localhost
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
            stop_signal="SIGKILL",  # an engine that restarts does not wait 10 s for each of ours
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
                folder = self._scratch.empty_folder("mounts-")
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
        with engine_errors(f"image {name}"):
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
        with engine_errors(f"cannot copy {path} out of image {image}"):
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
                remove_container(container)

    def _remove_containers(self, chosen: Callable[[str], bool]) -> None:
        for container in self._client.containers.list(
            all=True, filters={"label": LABEL}, ignore_removed=True
        ):
            if chosen(container.labels.get(LABEL, "")):
                remove_container(container)
