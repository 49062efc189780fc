"""What a sandbox leaves behind (nothing), and what it clears away of others."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from selfplay.cache import cache_root
from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.base import Environment, Job, Quota
from selfplay.sandbox.bubblewrap.cgroup import Cgroups, find_controllers
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox, find_bwrap
from selfplay.sandbox.owner import is_abandoned, owner_token
from selfplay.sandbox.scratch import Scratch, end_orphans
from selfplay.sandbox.select import open_sandbox
from selfplay.sandbox.unsafe import UnsafeSandbox
from selfplay.types import FileChange

JOB_QUOTA = Quota(timeout_s=20.0)


def dead_token() -> str:
    """The token of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    space = owner_token().split("-")[0]
    return f"{space}-{process.pid}-1"


def cgroups_of_ours() -> list[Path]:
    return [p for f in find_controllers() for p in f.iterdir() if p.name.startswith(owner_token())]


def open_descriptors() -> set[str]:
    return {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def in_a_new_process(check: Callable[..., None], *arguments: Any) -> None:
    """Where nothing else opens or closes a file: other files' sandboxes are kept open in ours."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(check, *arguments).result()


def test_nothing_is_left_after_close(environment: Environment, place: Path) -> None:
    in_a_new_process(nothing_is_left_after_close, environment, place / "scratch")


def nothing_is_left_after_close(environment: Environment, root: Path) -> None:
    before = open_descriptors()
    sandbox = BubblewrapSandbox(root)
    hostile = "mkdir -p /out/a/b; touch /out/a/b/c; ln -s / /out/root; chmod 0 /out/a/b /out/a"
    for argv in (("true",), ("sh", "-c", hostile), ("no-such-command",)):
        sandbox.run(Job(environment=environment, argv=argv, quota=JOB_QUOTA))
        assert len(list(root.glob("*/tmp*"))) == 0
    sandbox.close()
    sandbox.close()
    assert list(root.iterdir()) == []
    assert cgroups_of_ours() == []
    assert (after := open_descriptors()) == before, after ^ before


def test_failures_leave_nothing_either(environment: Environment, place: Path) -> None:
    in_a_new_process(failures_leave_nothing, environment, place / "scratch")


def failures_leave_nothing(environment: Environment, root: Path) -> None:
    before = open_descriptors()
    sandbox = BubblewrapSandbox(root)
    mounts = {**environment.mounts, "/no/such": "/opt"}
    broken = Environment(tree=environment.tree, mounts=mounts, path="/bin", digest="b")
    for _ in range(3):
        with pytest.raises(SandboxError):
            sandbox.run(Job(environment=broken, argv=("true",)))
    assert (after := open_descriptors()) == before, after ^ before
    sandbox.close()
    assert list(root.iterdir()) == []
    assert cgroups_of_ours() == []


@pytest.mark.parametrize("how", ["closed", "reaped"])
def test_half_a_sandbox_whose_other_half_was_killed_ends(place: Path, how: str) -> None:
    """Killed between making the second process and its namespaces, bwrap leaves that one waiting,
    and it does not die with any parent."""
    scratch = Scratch(place / "scratch")
    folder = scratch.empty_folder()
    info, info_in = os.pipe()
    block, block_in = os.pipe()
    argv = [str(find_bwrap()), "--unshare-user", "--die-with-parent", "--ro-bind", "/", "/"]
    argv += ["--ro-bind", str(folder), "/mnt", "--info-fd", str(info_in)]
    argv += ["--userns-block-fd", str(block), "true"]
    process = subprocess.Popen(argv, pass_fds=[info_in, block])
    os.close(info_in)
    told = b""
    while not (found := re.search(rb'"child-pid": (\d+)', told)):
        told += os.read(info, 4096)
    half = int(found[1])
    process.kill()
    process.wait()
    for fd in (info, block, block_in):
        os.close(fd)
    time.sleep(0.3)
    assert b"bwrap" in Path(f"/proc/{half}/cmdline").read_bytes(), "it waits for ever"
    if how == "closed":
        scratch.close()
    else:
        name = scratch.path.name.replace(owner_token(), dead_token())
        end_orphans(scratch.path.with_name(name))
        assert Path(f"/proc/{half}").exists(), "another one's"
        end_orphans(scratch.path)
    deadline = time.monotonic() + 60.0
    while Path(f"/proc/{half}").exists() and "Z" not in Path(f"/proc/{half}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    scratch.close()


def test_folders_of_dead_processes_are_reaped(place: Path) -> None:
    root = place / "scratch"
    dead, foreign = root / f"{dead_token()}-x", root / "1-1-1-other-namespace"
    (dead / "inside").mkdir(parents=True)
    foreign.mkdir()
    first = Scratch(root)
    second = Scratch(root)
    assert not dead.exists()
    assert foreign.exists()
    assert first.path.exists()
    first.close()
    second.close()
    foreign.rmdir()


def test_owner_tokens() -> None:
    assert not is_abandoned(owner_token())
    assert not is_abandoned(f"{owner_token()}-suffix")
    assert is_abandoned(dead_token())
    assert not is_abandoned("something else")
    reused = owner_token().rpartition("-")[0] + "-1"  # same pid, other start time
    assert is_abandoned(reused)


def test_leftovers_of_another_machine_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines that share a folder: all have the same number for their first pid namespace."""
    gone = dead_token()
    assert is_abandoned(gone)
    here = os.uname()
    other = os.uname_result((here.sysname, "another-machine", *tuple(here)[2:]))
    monkeypatch.setattr(os, "uname", lambda: other)
    assert not is_abandoned(gone) and not is_abandoned(owner_token())


def test_cgroups_of_dead_processes_are_reaped() -> None:
    for folder in find_controllers():
        (folder / f"{dead_token()}-0").mkdir()
    groups = Cgroups()
    assert not [p for f in groups.folders for p in f.iterdir() if is_abandoned(p.name)]


@pytest.mark.docker
def test_no_container_is_left(environment: Environment, place: Path) -> None:
    import docker

    from selfplay.sandbox.docker.sandbox import LABEL, DockerSandbox

    client = docker.from_env()

    def labelled(root: Path) -> list[Any]:
        found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        names = {path.name for path in root.iterdir()}
        return [c for c in found if c.labels[LABEL] in names]

    root = place / "docker"
    sandbox = DockerSandbox(root, num_workers=2)
    for argv in (("true",), ("sleep", "60"), ("no-such-command",), ("true",)):
        sandbox.run(Job(environment=environment, argv=argv, quota=Quota(timeout_s=2.0)))
    assert wait_until(lambda: [c.status for c in labelled(root)] == ["running"] * 2)  # they wait
    names = [path.name for path in root.iterdir()]
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError):
        sandbox.run(Job(environment=environment, argv=("true",)))
    assert list(root.iterdir()) == []
    found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    assert not [c for c in found if c.labels[LABEL] in names]
    client.close()
    assert not [name for name in open_descriptors() if name.startswith(str(root))]


@pytest.mark.docker
def test_containers_of_dead_processes_are_reaped(environment: Environment) -> None:
    import docker

    from selfplay.sandbox.docker.sandbox import IMAGE, LABEL, DockerSandbox

    client = docker.from_env()
    image = client.images.list(IMAGE)[0].tags[0]
    left = client.containers.create(image, ["/x"], labels={LABEL: dead_token()})
    mine = client.containers.create(image, ["/x"], labels={LABEL: owner_token()})
    other = DockerSandbox()
    remaining = {c.id for c in client.containers.list(all=True, filters={"label": LABEL})}
    assert left.id not in remaining
    assert mine.id in remaining
    other.close()
    mine.remove()
    client.close()


@pytest.mark.docker
def test_environment_from_an_image(environment: Environment) -> None:
    from selfplay.sandbox.docker.sandbox import DockerSandbox

    sandbox = DockerSandbox()
    sandbox.run(Job(environment=environment, argv=("true",)))  # imports the empty image
    mounts = {host: inside for host, inside in environment.mounts.items() if inside != "/etc"}
    own = replace(environment, image=sandbox.empty_image(), mounts=mounts)
    assert sandbox.run(Job(environment=own, argv=("cat", "plain.txt"))).output == b"plain\n"
    missing = replace(environment, image="selfplay-no-such-image:1")
    with pytest.raises(SandboxError, match="no-such-image"):
        sandbox.run(Job(environment=missing, argv=("true",)))
    sandbox.close()


def test_bubblewrap_refuses_images(environment: Environment) -> None:
    sandbox = BubblewrapSandbox()
    with pytest.raises(UserError, match="sandbox=docker"):
        sandbox.run(Job(environment=replace(environment, image="x", mounts={}), argv=("true",)))
    sandbox.close()


def test_jobs_die_with_a_killed_harness(environment: Environment, place: Path) -> None:
    marker = f"6{os.getpid()}.{time.monotonic_ns()}"
    program = (
        "import sys, pickle\n"
        "from selfplay.sandbox.base import Environment, Job\n"
        "from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox\n"
        "environment = pickle.load(sys.stdin.buffer)\n"
        "argv = ('sh', '-c', f'setsid sleep {sys.argv[1]} & sleep {sys.argv[1]}')\n"
        "BubblewrapSandbox().run(Job(environment=environment, argv=argv))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, marker], stdin=subprocess.PIPE)
    assert process.stdin is not None
    pickle.dump(environment, process.stdin)
    process.stdin.close()
    assert wait_until(lambda: len(sleepers(marker)) == 2)
    process.kill()
    process.wait()
    assert wait_until(lambda: not sleepers(marker))
    BubblewrapSandbox().close()  # the next start clears away what is left
    names = [path.name for path in (cache_root() / "scratch").iterdir()]
    assert not [name for name in names if f"-{process.pid}-" in name]


def sleepers(marker: str) -> list[str]:
    """Processes `sleep MARKER` on this machine."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += [entry.parent.name] * (
                entry.read_bytes() == b"sleep\0" + marker.encode() + b"\0"
            )
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_an_unreachable_cache_is_explained(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() == 0:
        closed.chmod(0o700)
        with pytest.raises(UserError, match="SELFPLAY_CACHE"):
            Scratch(closed / "scratch")
    open_sandbox("bubblewrap").close()


@pytest.mark.parametrize("mask", ["077", "027"])
def test_a_strict_umask_locks_no_sandbox_out(place: Path, mask: str) -> None:
    """As root: what the commands write into the cache is for another uid. Hardened machines."""
    cache = place / f"cache-{mask}"
    root = Path(__file__).resolve().parents[2]
    words = [sys.executable, "-m", "selfplay", "repos", "prepare", "repo=sample-textkit"]
    done = subprocess.run(
        ["sh", "-c", f'umask {mask}; exec "$@"', "sh", *words, "sandbox=bubblewrap"],
        env={**os.environ, "PYTHONPATH": str(root), "SELFPLAY_CACHE": str(cache)},
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_works_for_an_ordinary_user(environment: Environment, place: Path) -> None:
    """The same sandbox, started by a user without any rights."""
    folder = place / "ordinary"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from selfplay.sandbox.base import Environment, Job, Quota\n"
        "from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox\n"
        "from selfplay.sandbox.host import host_mounts, make_readable\n"
        "from selfplay.types import FileChange\n"
        "here = Path(sys.argv[1]); tree = here / 'tree'; tree.mkdir(parents=True)\n"
        "(tree / 'a').write_text('a'); make_readable(tree)\n"
        "env = Environment(tree=tree, mounts=host_mounts(), path='/usr/bin:/bin', digest='x')\n"
        "box = BubblewrapSandbox()\n"
        "job = Job(environment=env, argv=('sh', '-c', 'cat a b; id -u; echo o >/out/o; >a'),\n"
        "          layer={'b': FileChange(content=b'b')})\n"
        "result = box.run(job)\n"
        "print(result.exit_code, result.output, dict(result.files), (tree / 'a').read_text())\n"
        "closing = 'mkdir -p /out/a/b; echo x >/out/f; chmod 0 /out/a /out'\n"
        "print(box.run(Job(environment=env, argv=('sh', '-c', closing))).files)\n"
        "late = Job(environment=env, argv=('sh', '-c', 'setsid sleep 60 & wait'),\n"
        "           quota=Quota(timeout_s=0.5))\n"
        "print(box.run(late).timed_out)\n"
        "box.close(); print(list((here / 'cache' / 'scratch').iterdir()))\n"
    )
    interpreter = next(
        Path(host) / "bin" / f"python3.{sys.version_info.minor}"
        for host, inside in environment.mounts.items()
        if Path(sys.base_prefix).is_relative_to(inside)
    )
    argv = [str(interpreter), "-c", program, str(folder)]
    folder.mkdir()
    if os.geteuid() == 0:
        folder.chmod(0o777)
        argv = ["setpriv", "--reuid", "64001", "--regid", "64001", "--clear-groups", *argv]
    variables = {
        "PATH": "/usr/bin:/bin:/usr/sbin",
        "SELFPLAY_CACHE": str(folder / "cache"),
        "PYTHONPATH": ":".join(path for path in sys.path if path),
    }
    done = subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=200)
    expected = ["0 b'ab1000\\n' {'o': b'o\\n'} a", "{'f': b'x\\n'}", "True", "[]"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_unsafe_runs_on_a_copy(environment: Environment) -> None:
    sandbox = UnsafeSandbox()
    layer = {
        "plain.txt": FileChange(content=b"layer\n"),
        "package": FileChange(content=None),
        "link": FileChange(content=b"file\n"),
    }
    script = "cat /testbed/plain.txt /in/script link; ls; echo x >plain.txt; cp /in/script /out/r"
    result = sandbox.run(
        Job(
            environment=environment,
            argv=("sh", "-c", script),
            layer=layer,
            inputs={"script": b"# reads /in/data of /testbed, not /input\n"},
            variables={"REPORT": "/out/report"},
        )
    )
    assert result.exit_code == 0
    lines = result.output.decode().splitlines()
    assert [lines[0], *lines[2:]] == ["layer", "file", "link", "plain.txt", "with space; rm -rf"]
    assert lines[1].endswith("/testbed, not /input")
    assert lines[1].count(str(environment.tree)) == 0
    assert set(result.files) == {"r"}
    late = Job(environment=environment, argv=("sleep", "60"), quota=Quota(timeout_s=0.3))
    assert sandbox.run(late).timed_out
    assert sandbox.run(Job(environment=environment, argv=("no-such-command",))).exit_code == 127
    sandbox.close()


def test_seccomp_denies_calls(environment: Environment) -> None:
    program = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "names = dict(x86_64=(425, 321, 39), aarch64=(425, 280, 172))[os.uname().machine]\n"
        "for number in names:\n"
        "  ctypes.set_errno(0); libc.syscall(number, 0, 0, 0); print(ctypes.get_errno())\n"
    )
    sandbox = BubblewrapSandbox()
    result = sandbox.run(Job(environment=environment, argv=("python3", "-c", program)))
    sandbox.close()
    assert result.output.split() == [b"38", b"1", b"0"]


def test_a_cgroup_is_removed_with_whoever_is_left_in_it() -> None:
    """A sandbox that was killed half made left its cgroups behind."""
    groups = Cgroups()
    if groups.folders:  # an ordinary user has none
        left = subprocess.Popen(["sleep", "60"])
        threading.Thread(target=left.wait, daemon=True).start()
        with groups.job(Quota()) as made:
            for folder in made:
                (folder / "cgroup.procs").write_text(str(left.pid))
        assert left.wait(timeout=60) == -9
        assert cgroups_of_ours() == []
    groups.close()


def test_a_short_soak_loses_nothing() -> None:
    script = Path(__file__).parents[2] / "scripts" / "soak_sandbox.py"
    words = [sys.executable, str(script), "--runs", "60", "--kinds", "bubblewrap,forked"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    document = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert (document["lost"], document["mis_scored"], document["left_behind"]) == (0, 0, [])
    assert set(document["kills"]) == {"bwrap", "server"} and min(document["kills"].values()) > 0


def test_waiting_for_a_silent_command_costs_nothing(environment: Environment) -> None:
    """Its closed output hangs up at every poll: that must not keep the harness busy."""
    sandbox = UnsafeSandbox()
    began = time.process_time()
    script = "exec >&- 2>&-; sleep 1.5"
    assert sandbox.run(Job(environment=environment, argv=("sh", "-c", script))).exit_code == 0
    assert time.process_time() - began < 0.5
    sandbox.close()


def test_unsafe_deletes_nothing_behind_links(place: Path) -> None:
    (place / "outside").mkdir()
    (place / "outside" / "kept").touch()
    tree = place / "linked"
    tree.mkdir()
    (tree / "link").symlink_to(place / "outside")
    environment = Environment(tree=tree, mounts={}, path="/usr/bin:/bin", digest="linked")
    sandbox = UnsafeSandbox()
    layer = {"link/kept": FileChange(content=None)}
    sandbox.run(Job(environment=environment, argv=("true",), layer=layer))
    assert (place / "outside" / "kept").exists()
    sandbox.close()


def test_a_watch_during_a_slow_start_kills_nobody(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked at this machine's root, which bwrap had not left yet: innocent commands died."""
    monkeypatch.setattr("selfplay.sandbox.collect.WATCH_S", 0.0)
    sandbox = BubblewrapSandbox()
    job = Job(environment=environment, argv=("sh", "-c", "exit 7"), quota=Quota(memory=256 << 20))
    assert [sandbox.run(job).exit_code for _ in range(10)] == [7] * 10
    sandbox.close()
