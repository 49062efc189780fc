"""What untrusted code cannot do, in every backend."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from selfplay.sandbox.base import Environment, Quota, RunResult
from selfplay.sandbox.host import sandbox_uid
from selfplay.types import FileChange

Run = Callable[..., RunResult]
SHORT = Quota(timeout_s=2.0)


def processes_with(marker: str) -> list[str]:
    """Command lines on this machine that contain `marker`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if marker.encode() in line and int(entry.parent.name) != os.getpid():
            found.append(line.decode(errors="replace"))
    return found


def test_no_network_by_address(run: Run) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        own = socket.gethostbyname_ex(socket.gethostname())[2]
        program = (
            "import socket, sys\n"
            "for host in sys.argv[1:]:\n"
            f"  for port in ({port}, 53, 80):\n"
            "    try:\n"
            "      socket.create_connection((host, port), 1).close(); print(host, port)\n"
            "    except OSError: pass\n"
        )
        hosts = ["127.0.0.1", "1.1.1.1", "172.17.0.1", "169.254.169.254", *own]
        result = run("python3", "-c", program, *hosts)
    assert (result.exit_code, result.output) == (0, b"")


def test_no_names_are_resolved(run: Run) -> None:
    program = "import socket; print(socket.gethostbyname('example.com'))"
    result = run("python3", "-c", program)
    assert result.exit_code == 1
    assert b"gaierror" in result.output


def test_abstract_sockets_of_the_host_are_unreachable(run: Run) -> None:
    name = f"selfplay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        program = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
        assert b"Error" in run("python3", "-c", program).output


@pytest.mark.parametrize(
    "path",
    ["/etc/shadow", "/root/.bashrc", "/root/.ssh", "/home", "/var/run/docker.sock", "/var/cache"],
)
def test_host_files_cannot_be_read(run: Run, path: str) -> None:
    result = run("sh", "-c", f"cat {path} || ls {path}")
    assert result.exit_code not in (0, None)


def test_the_users_list_is_not_the_hosts(run: Run) -> None:
    lines = run("cat", "/etc/passwd").output.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == ["root", "sandbox"]


def test_nothing_outside_can_be_written(run: Run) -> None:
    places = "/ /usr /usr/bin /etc /proc/sys/kernel /in /sandbox /dev /sys /var"
    script = f"for d in {places}; do touch $d/made 2>/dev/null && echo wrote $d; done; true"
    assert run("sh", "-c", script).output == b""
    core = "echo '|/bin/false' >/proc/sys/kernel/core_pattern"
    assert run("sh", "-c", core).exit_code != 0
    assert run("sh", "-c", "echo 1 >/proc/sysrq-trigger").exit_code != 0


def test_interpreter_and_tools_are_read_only(run: Run) -> None:
    program = (
        "import os, sys\n"
        "for path in (os.__file__, os.path.realpath(sys.executable), '/usr/bin/env'):\n"
        "  try: open(path, 'a'); print('opened', path)\n"
        "  except OSError: pass\n"
    )
    assert run("python3", "-c", program).output == b""


def test_no_privileges(run: Run) -> None:
    script = "id -u; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs):' /proc/self/status"
    lines = run("sh", "-c", script).output.decode().split()
    assert int(lines[0]) in (1000, sandbox_uid())
    values = dict(zip(lines[1::2], lines[2::2], strict=True))
    assert int(values["CapEff:"], 16) == int(values["CapPrm:"], 16) == 0
    assert values["NoNewPrivs:"] == "1"
    for attempt in ("mount -t tmpfs x /tmp", "unshare -U true", "chown 0 plain.txt", "su -c true"):
        assert run("sh", "-c", attempt).exit_code != 0, attempt


def test_other_processes_are_not_seen(run: Run) -> None:
    result = run("sh", "-c", "ls -d /proc/[0-9]* | wc -l; kill -9 1; kill -9 -1; echo unreached")
    assert int(result.output.split()[0]) < 8


def test_timeout_ends_the_whole_tree(run: Run) -> None:
    marker = f"7{os.getpid()}.{time.monotonic_ns()}"
    script = (
        f"setsid sleep {marker} & (setsid sh -c 'trap \"\" TERM HUP; sleep {marker} & wait' &) ; "
        f"trap '' TERM; echo before; sleep {marker}; echo after"
    )
    began = time.monotonic()
    result = run("sh", "-c", script, quota=SHORT)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert result.output == b"before\n"
    assert time.monotonic() - began < 60
    assert processes_with(marker) == []


def test_daemons_end_with_their_command(run: Run) -> None:
    marker = f"8{os.getpid()}.{time.monotonic_ns()}"
    script = f"(setsid sh -c 'sleep {marker}' </dev/null >/dev/null 2>&1 &); sleep 0.2; exit 7"
    assert run("sh", "-c", script).exit_code == 7
    assert processes_with(marker) == []
    held = f"(setsid sleep {marker} &); exit 8"  # the daemon keeps the output open
    began = time.monotonic()
    assert run("sh", "-c", held).exit_code == 8
    assert time.monotonic() - began < 60
    assert processes_with(marker) == []


def test_a_command_that_closes_its_output_still_times_out(run: Run) -> None:
    marker = f"9{os.getpid()}.{time.monotonic_ns()}"
    result = run("sh", "-c", f"exec >&- 2>&-; sleep {marker}", quota=SHORT)
    assert result.timed_out
    assert processes_with(marker) == []
    closed = run("sh", "-c", "exec >&- 2>&- <&-; sleep 0.3; exit 5")
    assert closed.exit_code == 5


def test_output_flood_is_cut_and_the_command_ends_by_itself(run: Run) -> None:
    quota = Quota(output=1_000_000)
    result = run("sh", "-c", "head -c 30000000 /dev/zero; exit 4", quota=quota)
    assert (result.exit_code, result.output_truncated) == (4, True)
    assert result.output == bytes(1_000_000)


def test_endless_output_ends_at_the_deadline(run: Run) -> None:
    result = run("yes", quota=Quota(timeout_s=2.0, output=1_000_000))
    assert result.timed_out
    assert result.output_truncated
    assert len(result.output) == 1_000_000


def test_output_of_exactly_the_quota_is_whole(run: Run) -> None:
    result = run("head", "-c", "5000", "/dev/zero", quota=Quota(output=5000))
    assert (len(result.output), result.output_truncated) == (5000, False)


def test_fork_bomb_is_bounded(run: Run) -> None:
    program = (
        "import os, time\n"
        "n = 0\n"
        "while True:\n"
        "  try: pid = os.fork()\n"
        "  except OSError: break\n"
        "  if pid == 0: time.sleep(60)\n"
        "  n += 1\n"
        "print(n)\n"
    )
    result = run("python3", "-c", program, quota=Quota(num_processes=40, timeout_s=30))
    assert result.exit_code == 0
    assert 10 < int(result.output) < 40


def test_wild_fork_bomb_ends_at_the_deadline(run: Run) -> None:
    quota = Quota(num_processes=64, timeout_s=2.0)
    result = run("sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60", quota=quota)
    assert result.timed_out or result.exit_code is not None
    assert run("true").exit_code == 0


def test_memory_is_bounded(run: Run) -> None:
    program = "x = bytearray(600 << 20); print('had it')"
    result = run("python3", "-c", program, quota=Quota(memory=256 << 20))
    assert result.exit_code not in (0, None)
    assert b"had it" not in result.output


def test_file_size_is_bounded(run: Run) -> None:
    quota = Quota(file_size=1 << 20)
    script = "head -c 3000000 /dev/zero >big; echo $?; stat -c %s big"
    lines = run("sh", "-c", script, quota=quota).output.decode().split()
    assert lines[-1] == str(1 << 20)
    assert lines[-2] != "0"


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_temporary_space_is_bounded(run: Run, folder: str) -> None:
    script = f"for i in $(seq 40); do head -c 100000000 /dev/zero >{folder}/$i || exit 9; done"
    quota = Quota(memory=512 << 20, timeout_s=60)
    assert run("sh", "-c", script, quota=quota).exit_code not in (0, None)


def test_out_cannot_fill_the_disk(run: Run) -> None:
    script = "i=0; while true; do i=$((i+1)); head -c 1000000 /dev/zero >/out/$i; done"
    quota = Quota(output=4 << 20, file_size=4 << 20, timeout_s=30)
    result = run("sh", "-c", script, quota=quota)
    assert (result.exit_code, result.timed_out, dict(result.files)) == (137, False, {})
    assert b"/out holds too many" in result.output


@pytest.mark.parametrize("ending", ["", "os.chmod('/out/d', 0)", "import time; time.sleep(9)"])
def test_a_bottomless_folder_harms_nobody(run: Run, ending: str) -> None:
    program = (
        f"import os\nos.chdir('/out')\nfor _ in range(2500): os.mkdir('d'); os.chdir('d')\n{ending}"
    )
    result = run("python3", "-c", program, quota=Quota(timeout_s=30.0))
    assert (result.timed_out, dict(result.files)) == (False, {})
    assert run("true").exit_code == 0


def test_the_tree_in_memory_is_bounded(run: Run) -> None:
    script = "i=0; while true; do i=$((i+1)); head -c 1000000 /dev/zero >f$i || exit 9; done"
    result = run("sh", "-c", script, quota=Quota(memory=128 << 20, timeout_s=60))
    assert not result.timed_out
    assert result.exit_code not in (0, None)


def test_eight_at_once(run: Run) -> None:
    barrier = threading.Barrier(8)

    def work(number: int) -> bytes:
        barrier.wait()
        layer = {"plain.txt": FileChange(content=str(number).encode())}
        script = "cat plain.txt; echo $$ >made; sleep 0.2; ls"
        return run("sh", "-c", script, layer=layer).output

    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(work, range(8)))
    names = b"link\nmade\npackage\nplain.txt\nwith space; rm -rf\n"
    assert outputs == [str(number).encode() + names for number in range(8)]


def test_descriptors_of_the_harness_do_not_leak(run: Run, environment: Environment) -> None:
    with (environment.tree / "plain.txt").open() as file:
        os.set_inheritable(file.fileno(), True)
        result = run("sh", "-c", "ls /proc/$$/fd")
    numbers = {int(line) for line in result.output.split()}
    assert {0, 1, 2} <= numbers
    assert all(number < 3 or number >= 10 for number in numbers)  # 10 and up: the shell's own
