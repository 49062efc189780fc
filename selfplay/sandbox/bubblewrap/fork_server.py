"""Runs INSIDE a sandbox, standard library only: a Python that has loaded a test runner and forks.

The start of an interpreter and of pytest costs more than most test runs do. This process pays it
once. For each job it forks a child that makes itself a sandbox within the sandbox (new user, mount,
pid, network and ipc namespaces; its own overlay, /tmp, /proc, /in and /out), gives up every
privilege and becomes `python -m MODULE ARGUMENTS`. It loads nothing of the repository itself: the
original tree lies at /base, `WORKDIR` is empty here.

    server    the loop; trusted, single-threaded; never runs code of a repository
     └ keeper   one for each job: makes the namespaces, tells the harness how it ended
        └ init     first process of the new pid namespace: its end is the end of every process
           └ runner   the job; returns from `serve` and runs the module

Messages are JSON over a SOCK_SEQPACKET pair (see `sandbox.forking`, the other end).
"""

from __future__ import annotations

import ast
import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
PR_CAPBSET_DROP, PR_SET_PDEATHSIG, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 1, 47, 4
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
LAST_CAPABILITY = 63

BASE, JOBS, UPPER = "/base", "/jobs", "/overlay"
MAX_DESCRIPTORS = 8
HIDDEN = (BASE, JOBS, UPPER)
AT_START = ("sitecustomize", "usercustomize")
"""Modules that an interpreter looks for before anything else: a tree that has one is refused."""
PRELOADED = {
    "pytest": (
        *("unittest", "unittest.mock", "doctest", "pdb", "xml.etree.ElementTree"),
        *("importlib.metadata", "decimal", "fractions", "datetime", "json", "logging", "difflib"),
        *("asyncio", "concurrent.futures", "tempfile", "csv", "random", "uuid", "html"),
    ),
}

_libc = ctypes.CDLL(None, use_errno=True)


def preload(module: str) -> None:
    """Load the module and what goes with it; what is not there is left out."""
    for name in (module, *PRELOADED.get(module, ())):
        with suppress(ImportError):
            importlib.import_module(name)
    if module == "pytest" and module in sys.modules:
        rehearse()
        remember_syntax_trees()
    gc.collect()
    # What was loaded moves to a generation that is never collected: the pages stay shared.
    gc.freeze()  # a collection in a child neither visits nor copies what was loaded here


def rehearse() -> None:
    """One tiny session of pytest, so that what it loads and compiles at first use is there. What
    it changes for good is put back.

    Plugins are left out: they are strangers' code, and may keep what they find when they are
    imported (the working directory, variables, the time), which is not that of a run.
    """
    folder = tempfile.mkdtemp()
    variables = {name: os.environ.pop(name) for name in [*os.environ] if name[:7] == "PYTEST_"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    kept = (sys.path, sys.meta_path, warnings.filters)
    before = [list(values) for values in kept]
    test = Path(folder, "test_rehearsal.py")
    test.write_text(
        "import unittest\n\n\ndef test_a(tmp_path, monkeypatch, capsys):\n    pass\n\n\n"
        "class TestB(unittest.TestCase):\n    def test_b(self):\n        pass\n"
    )
    stdout, sys.stdout = sys.stdout, io.StringIO()
    try:
        os.chdir(folder)
        options = ["-v", "-rA", "-o", "cache_dir=cache", "--junitxml", f"{folder}/junit.xml"]
        importlib.import_module("pytest").main([*options, str(test)])
    finally:
        sys.stdout = stdout
        os.chdir("/")
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        os.environ.update(variables)
        shutil.rmtree(folder)
        sys.modules.pop("test_rehearsal", None)
        for values, original in zip(kept, before, strict=True):
            values[:] = original  # type: ignore[index]


def remember_syntax_trees() -> None:
    """Have pytest parse a file once a run, and not once for each failing test that shows a part of
    it: where a bug fails most tests of one long file, that was nine tenths of the run."""
    try:
        homes = [importlib.import_module(f"_pytest._code.{name}") for name in ("source", "code")]
        original: Callable[..., Any] = homes[0].getstatementrange_ast
    except (ImportError, AttributeError):
        return  # a pytest that does otherwise
    trees: dict[str, ast.AST] = {}

    def remembering(
        lineno: int, source: object, assertion: bool = False, astnode: ast.AST | None = None
    ) -> Any:
        text = str(source)
        found = original(lineno, source, assertion, astnode or trees.get(text))
        trees[text] = found[0]
        return found

    for home in homes:
        if getattr(home, "getstatementrange_ast", None) is original:
            home.getstatementrange_ast = remembering  # type: ignore[attr-defined]


def serve(control: socket.socket) -> dict[str, Any]:
    """Answer jobs until the harness hangs up; returns only in a runner, with its job."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers need no burial
    control.send(b'{"ready": true}')
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1 << 20, MAX_DESCRIPTORS)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            job: dict[str, Any] = json.loads(message)
            try:
                link, output, stdin, *doors = fds
                keep(job, link, output, stdin, doors)
            except BaseException as error:
                with suppress(OSError):
                    _say(fds[0], error=f"{type(error).__name__}: {error}")
                os._exit(1)
            return job
        for fd in fds:
            os.close(fd)


def keep(job: dict[str, Any], link: int, output: int, stdin: int, doors: list[int]) -> None:
    """The keeper: namespaces and mounts, then wait for init. Returns only in the runner."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    uid, gid = os.getuid(), os.getgid()
    _check(
        _libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC),
        "unshare",
    )
    # Without CAP_SETGID a group map is accepted only once setgroups is denied: the order matters.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    mount_snapshot(job)
    raise_loopback()
    # unshare(CLONE_NEWPID) moves the children, not the caller: this fork is process 1 in there.
    init = os.fork()
    if init == 0:
        begin(job, link, output, stdin, doors)
        return
    # The harness reads `output` to its end, so nobody but the job may hold it open.
    for fd in (output, stdin, *doors):
        os.close(fd)
    status = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
    _say(link, exit_code=status)
    os._exit(0)


def mount_snapshot(job: dict[str, Any]) -> None:
    """The tree with the job's layer above it, fresh scratch space, the job's own files; everything
    that belongs to other jobs, and the bare original, is covered."""
    here = f"{JOBS}/{job['folder']}"
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", UPPER, "tmpfs", MS_NOSUID | MS_NODEV)
    for name in ("upper", "work"):
        Path(UPPER, name).mkdir()
    below = f"{here}/layer:{BASE}" if job["layer"] else BASE
    # userxattr: an overlay mounted in a user namespace may not write trusted.* attributes.
    options = f"lowerdir={below},upperdir={UPPER}/upper,workdir={UPPER}/work,userxattr"
    _mount("overlay", job["workdir"], "overlay", MS_NOSUID | MS_NODEV, options)
    _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={job['tmp_size']}")
    _mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={job['shm_size']}")
    _mount(
        "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620",
    )  # fmt: skip
    _mount(f"{here}/out", "/out", None, MS_BIND)
    if job["inputs"]:
        _mount(f"{here}/in", "/in", None, MS_BIND)
        _mount(None, "/in", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    # Last: the mounts above took what they need from these places.
    for place in HIDDEN:
        _mount("tmpfs", place, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=000")


def begin(job: dict[str, Any], link: int, output: int, stdin: int, doors: list[int]) -> None:
    """Init: the last mounts, no privileges, into the job's cgroups, then wait for the word.
    Returns only in the runner."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "pdeathsig")
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # No further user namespace, in which the job would have every capability again.
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    drop_capabilities()
    os.chdir(job["workdir"])
    for path in job["deleted"]:
        remove(path)
    refused = shadowed(job)
    # A door is the open cgroup.procs of one cgroup; "0" stands for the process that writes.
    for door in doors:
        os.write(door, b"0")
    # The harness can end the job by this descriptor, whatever its number is out there by then.
    _say(link, fds=[os.pidfd_open(os.getpid())], refused=refused)
    if not os.read(link, 1) or refused:
        os._exit(0)
    runner = os.fork()
    if runner == 0:
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        bound(job["limits"])  # what is raised here is told by `link`: no exit code of the job's
        adopt(job)
        os.closerange(3, 1 << 16)
        return
    os.closerange(0, 1 << 12)
    # As process 1 it also buries orphans; its own end, with the runner's, takes all others along.
    while True:
        pid, status = os.wait()
        if pid == runner:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def end(module: str) -> None:
    """Run the module and exit as an interpreter does, but for the slow burial of its objects."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if code == 1 and not isinstance(leaving.code, int):
            sys.stderr.write(f"{leaving.code}\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
    os._exit(code & 0xFF)


def adopt(job: dict[str, Any]) -> None:
    """Look like a process that was started as `python -m MODULE ARGUMENTS` in the tree."""
    os.environ.clear()
    os.environ.update(job["variables"])
    time.tzset()
    tempfile.tempdir = None  # to be found out anew: the rehearsal ran under other variables
    sys.argv = ["-m", *job["arguments"]]
    sys.orig_argv = ["python", "-m", job["module"], *job["arguments"]]
    sys.path[0] = job["workdir"]
    for name in [place for place in sys.path_importer_cache if place.startswith(job["workdir"])]:
        del sys.path_importer_cache[name]
    importlib.invalidate_caches()


def shadowed(job: dict[str, Any]) -> str:
    """Name of a loaded module that the job's tree would have put before it; "" when there is
    none. Such a tree must be run by an interpreter of its own."""
    workdir: str = job["workdir"]
    places = {workdir, *(place for place in sys.path if place.startswith(workdir))}
    loaded = {name.partition(".")[0] for name in sys.modules} | set(AT_START)
    for place in sorted(places):
        with suppress(OSError):
            for entry in os.scandir(place):
                if entry.name.partition(".")[0] in loaded:
                    return entry.name
    return ""


def bound(limits: dict[str, int]) -> None:
    """Resource limits, which nothing below can raise."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))


def drop_capabilities() -> None:
    """Empty every capability set; `no_new_privs` was set by bwrap."""
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)), "capset")


def raise_loopback() -> None:
    """Bring `lo` up: suites that use sockets need it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        import fcntl

        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(probe, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def remove(path: str) -> None:
    """Remove a file, link or directory, whichever it is."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            place.unlink()


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str = ""
) -> None:
    def raw(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    done = _libc.mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), raw(options))
    _check(done, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _say(link: int, fds: list[int] | None = None, **message: object) -> None:
    with socket.socket(fileno=os.dup(link)) as end:
        socket.send_fds(end, [json.dumps(message).encode()], fds or [])


if __name__ == "__main__":
    preload(sys.argv[2])
    job = serve(socket.socket(fileno=int(sys.argv[1])))
    end(job["module"])
