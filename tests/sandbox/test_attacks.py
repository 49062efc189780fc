"""More of what hostile code tries, in every backend. docs/sandboxes.md lists all of it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.types import FileChange

Run = Callable[..., RunResult]
ROOT = Path(__file__).parents[2]


def tried(run: Run, attempts: list[str], **keywords: object) -> str:
    """Output of Python statements of which each prints its number when it succeeds."""
    program = "import ctypes, os, signal, socket, stat, struct, subprocess, sys\n"
    program += "libc = ctypes.CDLL(None, use_errno=True)\n"
    program += "def call(result):\n    if result < 0: raise OSError(ctypes.get_errno())\n"
    for number, attempt in enumerate(attempts):
        program += f"try:\n    {attempt}\n    print({number})\nexcept Exception: pass\n"
    result = run("python3", "-c", program, **keywords)
    assert result.exit_code == 0, result.output
    return result.output.decode().strip()


def test_other_sandboxes_are_not_seen(run: Run) -> None:
    secret = f"secret-{os.getpid()}-{time.monotonic_ns()}"
    hides = f"for d in /tmp /dev/shm . /out; do echo {secret} >$d/{secret}; done; sleep 2 #{secret}"
    seeks = (
        "sleep 0.7; find / -xdev -name 'secre[t]-*' 2>/dev/null; ls /tmp /dev/shm /out; "
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'secre[t]-[0-9]*' ; true"
    )
    with ThreadPoolExecutor(2) as threads:
        hiding = threads.submit(run, "sh", "-c", hides)
        found = threads.submit(run, "sh", "-c", seeks).result().output.decode()
        hiding.result()
    assert "secret-" not in found


def test_links_lead_nowhere(run: Run) -> None:
    targets = ["/etc/shadow", "../../../../../../etc/shadow", "/proc/1/root/etc/shadow"]
    attempts = [
        f"os.symlink({target!r}, 'link{n}'); open('link{n}').read()"
        for n, target in enumerate(targets)
    ]
    assert tried(run, attempts) == ""


def test_proc_and_sys_say_nothing_and_take_nothing(run: Run) -> None:
    written = [
        "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
        "/proc/1/oom_score_adj", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs",
        "/proc/sys/user/max_user_namespaces", "/proc/irq/default_smp_affinity",
    ]  # fmt: skip
    read = ["/proc/kcore", "/proc/kmsg", "/sys/kernel/debug/gpio", "/proc/1/mem"]
    attempts = [f"open({path!r}, 'r+').write('1\\n')" for path in written if "oom" not in path]
    attempts += [f"open({path!r}, 'rb').read(1)" for path in read]
    attempts.append("assert [l for l in open('/proc/kallsyms') if int(l.split()[0], 16)]")
    assert tried(run, attempts) == ""


def test_host_processes_cannot_be_signalled_or_traced(run: Run) -> None:
    own, parent = os.getpid(), os.getppid()
    attempts = [
        f"os.kill({own}, 0)",
        f"os.kill({parent if parent > 300 else own}, 0)",
        f"call(libc.ptrace(16, {own}, 0, 0))",
        f"os.pidfd_open({own})",
        f"open('/proc/{own}/environ').read()",
    ]
    assert own > 300  # else it could be a pid of the sandbox's own
    assert tried(run, attempts) == ""


def test_device_nodes_cannot_be_made_or_found(run: Run) -> None:
    attempts = [
        f"os.mknod('{folder}/node', stat.S_IFBLK | 0o666, os.makedev({major}, 0))"
        for folder in ("/tmp", ".", "/dev/shm", "/out")
        for major in (1, 8, 254)
    ]
    attempts += [f"open('/dev/{name}', 'rb').read(1)" for name in ("mem", "sda", "vda", "kvm")]
    assert tried(run, attempts) == ""


def test_setuid_gives_nothing(run: Run) -> None:
    script = (
        "cp /usr/bin/id /tmp/id && chmod 6755 /tmp/id && /tmp/id -u; "
        "find /usr -xdev -perm -4000 -exec {} --version \\; >/dev/null 2>&1; id -u; "
        "su -c 'touch /root/x' </dev/null; id -u"
    )
    numbers = [int(n) for n in re.findall(rb"^(\d+)$", run("sh", "-c", script).output, re.M)]
    assert len(numbers) == 3
    assert set(numbers) == {numbers[0]}
    assert numbers[0] != 0
    assert tried(run, ["os.setuid(0)", "os.setgid(0)", "os.setgroups([0])"]) == ""


def test_nothing_can_be_mounted_or_entered(run: Run) -> None:
    attempts = [
        "call(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
        "call(libc.mount(b'/', b'/tmp', None, 4096, None))",
        "call(libc.umount2(b'/testbed', 2))",
        "call(libc.umount2(b'/proc', 2))",
        "call(libc.unshare(0x10000000))",
        "call(libc.unshare(0x00020000))",
        "call(libc.setns(os.open('/proc/1/ns/mnt', 0), 0))",
        "os.chroot('/tmp')",
        "call(libc.pivot_root(b'.', b'.'))",
    ]
    assert tried(run, attempts) == ""


def test_no_way_out_by_odd_sockets(run: Run) -> None:
    attempts = [
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.create_connection(('169.254.169.254', 80), 1)",
        "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('2606:4700::1', 53))",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('8.8.8.8', 53))",
        "assert [n for _, n in socket.if_nameindex() if n != 'lo' and 'tunl' not in n"
        " and 'gre' not in n and 'sit' not in n and 'ip6' not in n and 'erspan' not in n"
        " and 'vti' not in n]",
    ]
    assert tried(run, attempts) == ""


def test_the_hypervisor_is_not_reached(environment: Environment) -> None:
    sandbox = BubblewrapSandbox()  # Docker's filter knows this family from engine 23 on

    def run(*argv: str, **keywords: object) -> RunResult:
        return sandbox.run(Job(environment=environment, argv=argv))

    families = ["AF_VSOCK", "AF_ALG", "AF_BLUETOOTH", "AF_TIPC"]
    attempts = [f"socket.socket(socket.{name}, socket.SOCK_STREAM)" for name in families]
    assert tried(run, [*attempts, "libc.ptrace(0, 0, 0, 0) + 1 or call(-1)"]) == ""
    assert tried(run, ["socket.socket(socket.AF_INET)", "socket.socketpair()"]) == "0\n1"
    sandbox.close()


def test_huge_and_odd_names_are_survived(run: Run) -> None:
    program = (
        "import os\n"
        "os.chdir('/out')\n"
        "for name in [b'a' * 255, b'new\\nline', b'\\xff\\xfe', b'-rf', b'$(id)', b' ']:\n"
        "    open(name, 'w').write('x')\n"
        "os.chdir('/testbed')\n"
        "for _ in range(40):\n    os.mkdir('d' * 255); os.chdir('d' * 255)\n"
    )
    result = run("python3", "-c", program)
    assert result.exit_code == 0, result.output
    assert {os.fsencode(n) for n in result.files} >= {b"a" * 255, b"new\nline", b"\xff\xfe", b"-rf"}


def test_many_small_files_harm_nobody(run: Run) -> None:
    program = "import itertools\nfor n in itertools.count(): open(f'/tmp/{n}', 'w').close()"
    result = run("python3", "-c", program, quota=Quota(timeout_s=20.0, memory=256 << 20))
    assert result.timed_out or result.exit_code != 0
    assert run("true").exit_code == 0


def test_files_without_a_name_are_counted(run: Run) -> None:
    """They are in no folder, and filled the disk of everybody: then nobody had a verdict."""
    program = (
        "import os, time\nkept = []\n"
        "for number in range(6):\n"
        "    fd = os.open('/out/x', os.O_RDWR | os.O_CREAT)\n"
        "    os.unlink('/out/x'); kept.append(fd)\n"
        "    os.posix_fallocate(fd, 0, 60 << 20)\n"
        "print('filled', flush=True); time.sleep(20)\n"
    )
    quota = Quota(timeout_s=30, file_size=64 << 20, output=64 << 20)
    result = run("python3", "-c", program, quota=quota)
    assert "without a name" in result.stopped
    assert result.output.startswith(b"filled")
    assert (result.exit_code, result.timed_out) == (137, False)


def test_threads_and_children_count_alike(run: Run) -> None:
    program = (
        "import threading, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 500: threading.Thread(target=time.sleep, args=(9,), daemon=True).start();"
        " n += 1\n"
        "except RuntimeError: pass\n"
        "print(n, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    result = run("python3", "-c", program, quota=Quota(num_processes=50, timeout_s=30))
    assert int(result.output.split()[-1]) < 50


def test_processor_time_is_bounded(run: Run) -> None:
    """Work that hides from the wall clock in many processes ends at the deadline all the same."""
    script = "for i in 1 2 3 4; do (while :; do :; done) & done; wait"
    began = time.monotonic()
    assert run("sh", "-c", script, quota=Quota(timeout_s=2.0)).timed_out
    assert time.monotonic() - began < 60


def test_a_stopped_process_still_times_out(run: Run) -> None:
    result = run("sh", "-c", "kill -STOP $$; echo on", quota=Quota(timeout_s=1.5))
    assert result.timed_out


def test_byte_code_left_by_one_run_does_not_reach_the_next(run: Run) -> None:
    poison = (
        "import py_compile, pathlib\n"
        "pathlib.Path('package/evil.py').write_text('VALUE = \"evil\"')\n"
        "py_compile.compile('package/evil.py', 'package/__pycache__/module.cpython-311.pyc')\n"
    )
    layer = {"package/__init__.py": FileChange(content=b"")}
    run("python3", "-c", poison, layer=layer)
    reads = "from package.module import VALUE; print(VALUE)"
    assert run("python3", "-c", reads, layer=layer).output == b"original\n"


def test_every_attack_of_the_documentation_has_its_test() -> None:
    table = (ROOT / "docs" / "sandboxes.md").read_text()
    named = re.findall(r"`(test_\w+)`", table)
    source = "".join(p.read_text() for p in sorted((ROOT / "tests").glob("*/test_*.py")))
    missing = [name for name in named if f"def {name}(" not in source]
    assert missing == []
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`test_" in line]
    assert len(rows) >= 25
    attacks = re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.M)
    assert set(attacks) - set(named) <= {"test_every_attack_of_the_documentation_has_its_test"}


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000 + "f"])
def test_layers_with_impossible_names_are_refused(
    sandbox: Sandbox, environment: Environment, name: str
) -> None:
    from selfplay.errors import SelfplayError

    layer = {name: FileChange(content=b"x")}
    with pytest.raises(SelfplayError):
        sandbox.run(Job(environment=environment, argv=("true",), layer=layer))
