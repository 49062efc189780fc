"""Runs forked from a loaded interpreter: the same answers as plain ones, and their own dangers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.bugs.test_runs.pytest_framework import pytest_script
from selfplay.bugs.test_runs.scripts import script_module
from selfplay.cache import cache_root
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, Quota, RunResult
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.pool import RetryingSandbox
from selfplay.types import FileChange
from tests.own_packages import copy_pytest

Texts = Mapping[str, str | None]
FILES = {
    "shop.py": "PRICE = 3\n\ndef total(count):\n    return PRICE * count\n",
    "tests/test_shop.py": (
        "import os, random, shop\n\n"
        "def test_total():\n    assert shop.total(2) == 6\n\n"
        "def test_hash():\n    print('hash', hash('a string'), 'random', random.random())\n\n"
        "def test_home(tmp_path, monkeypatch):\n    assert os.getcwd() == '/testbed'\n\n"
        "def test_plugin():\n    import remembers\n"
        "    assert remembers.FOUND == ('/testbed', os.environ['PYTHONHASHSEED'])\n"
    ),
    "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['.']\n",
}
TESTS = ("tests/test_shop.py",)
PLUGIN = {  # that loads itself, and keeps what it finds then
    "remembers.py": "import os\nFOUND = os.getcwd(), os.environ.get('PYTHONHASHSEED')\n",
    "remembers-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: remembers\nVersion: 1\n",
    "remembers-1.dist-info/entry_points.txt": "[pytest11]\nremembers = remembers\n",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """A tiny project with this interpreter's pytest mounted beside it."""
    root = cache_root() / "tests" / f"forking-{os.getpid()}"
    tree, packages = root / "tree", root / "packages"
    for name, content in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    copy_pytest(packages)
    for name, content in PLUGIN.items():
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(content)
    make_readable(root)
    yield Environment(
        tree=tree,
        mounts={**host_mounts(), str(packages): "/opt/packages"},
        path="/opt/packages/bin:/usr/local/bin:/usr/bin:/bin",
        digest=root.name,
        variables={"PYTHONPATH": "/testbed:/opt/packages"},
    )
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def forking() -> Iterator[BubblewrapSandbox]:
    opened = BubblewrapSandbox(preload=True)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def plain() -> Iterator[BubblewrapSandbox]:
    opened = BubblewrapSandbox()
    yield opened
    opened.close()


def job_of(shop: Environment, texts: Texts | None = None, **variables: str) -> Job:
    script = pytest_script(TESTS)
    return Job(
        environment=shop,
        argv=("bash", "/in/test_script.sh"),
        module=script_module(script, "/out/junit.xml"),
        layer={
            path: FileChange(content=None if text is None else text.encode())
            for path, text in (texts or {}).items()
        },
        inputs={"test_script.sh": script.encode()},
        variables={"JUNIT_XML": "/out/junit.xml", "PYTHONHASHSEED": "0", **variables},
        quota=Quota(timeout_s=30.0),
    )


def without_noise(result: RunResult) -> tuple[int | None, str, list[str]]:
    """What must agree: exit code, output but for times and random numbers, files."""
    text = re.sub(r"in \d+\.\d+s|random \d\S+|0x[0-9a-f]+", "", result.output.decode())
    text = text.partition("Fatal Python error")[0]  # the stack below main differs
    return result.exit_code, text, sorted(result.files)


BUG = {"shop.py": "PRICE = 3\n\ndef total(count):\n    return PRICE + count\n"}
STATES: dict[str, Texts] = {
    "original": {},
    "bug": BUG,
    "syntax error": {"shop.py": "def total(:\n"},
    "no module": {"shop.py": None},
    "no tests": {"tests/test_shop.py": None},
    "exit in a test": {"shop.py": "import os\n\ndef total(count):\n    os._exit(7)\n"},
    "exit at import": {"shop.py": "raise SystemExit(3)\n"},
    "crash": {"shop.py": "import os\n\ndef total(count):\n    os.kill(os.getpid(), 11)\n"},
    "terminated": {"shop.py": "import os\n\ndef total(count):\n    os.kill(os.getpid(), 15)\n"},
    "prints at exit": {
        "shop.py": FILES["shop.py"] + "import atexit\natexit.register(print, 'bye')\n"
    },
    "thread outlives": {
        "shop.py": FILES["shop.py"] + "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), print('late'))).start()\n"
    },
    "helper file": {"tests/conftest.py": "def pytest_configure(config):\n    print('hook')\n"},
    "own pytest": {"pytest.py": "print('not the real one')\n"},
    "own random": {"random.py": "def random():\n    return 0\n"},
    "starts before all": {"sitecustomize.py": "print('first')\n"},
}


@pytest.mark.parametrize("state", STATES)
def test_the_plain_path_agrees(
    state: str, forking: BubblewrapSandbox, plain: BubblewrapSandbox, shop: Environment
) -> None:
    job = job_of(shop, STATES[state])
    before = forking.num_forked
    forked, reference = forking.run(job), plain.run(job)
    assert without_noise(forked) == without_noise(reference)
    own_start = state in ("own pytest", "own random", "starts before all")
    assert (forking.num_forked - before) == (not own_start)


def test_a_file_is_parsed_once_however_many_tests_fail(
    forking: BubblewrapSandbox, plain: BubblewrapSandbox, shop: Environment
) -> None:
    """pytest parses it for each failure, to show the failing statement."""
    many = "".join(
        f"def test_{i}():\n    assert (\n        shop.total(2)\n        == {i}\n    )\n\n"
        for i in range(30)
    )
    counting = (
        "import ast\n\nparse, calls = ast.parse, []\n\n"
        "def counted(source, filename='<unknown>', *rest, **named):\n"
        "    calls.append(filename)\n    return parse(source, filename, *rest, **named)\n\n"
        "ast.parse = counted\n\n"
        "def pytest_unconfigure():\n    print('parsed', calls.count('source'))\n"
    )
    texts = {"tests/test_shop.py": f"import shop\n\n{many}", "conftest.py": counting, **BUG}
    results = [without_noise(sandbox.run(job_of(shop, texts))) for sandbox in (forking, plain)]
    counts = [int(re.findall(r"parsed (\d+)", text)[0]) for _, text, _ in results]
    assert counts[0] == 1 and counts[1] >= 29
    code, text, files = results[0]
    assert (code, text.replace("parsed 1", f"parsed {counts[1]}"), files) == results[1]


def test_hash_seeds_are_kept_apart(forking: BubblewrapSandbox, shop: Environment) -> None:
    def hash_of(seed: str) -> str:
        output = forking.run(
            job_of(shop, {"tests/test_shop.py": "def test():\n    assert hash('a') == 0\n"},
                      PYTHONHASHSEED=seed)
        ).output.decode()  # fmt: skip
        found = re.search(r"assert (-?\d+) == 0", output)
        assert found, output
        return found.group(1)

    assert hash_of("0") == hash_of("0") != hash_of("1")


def test_random_numbers_differ_from_run_to_run(
    forking: BubblewrapSandbox, shop: Environment
) -> None:
    prints = {"tests/test_shop.py": "import random\nprint('got', random.random())\ndef test(): 1\n"}
    seen = {
        re.findall(
            rb"got (\S+)",
            forking.run(replace(job, module=("pytest", "-s", *job.module[1:]))).output,
        )[0]
        for job in [job_of(shop, prints)] * 3
    }
    assert len(seen) == 3


def test_neither_the_original_nor_other_jobs_are_seen(
    forking: BubblewrapSandbox, shop: Environment
) -> None:
    probe = (
        "import os\n"
        "def test():\n"
        "    found = []\n"
        "    for place in ('/base', '/jobs', '/overlay', '/proc/1/root/base', '/proc/1/cwd'):\n"
        "        try: found += [place + '/' + name for name in os.listdir(place)]\n"
        "        except OSError: pass\n"
        "    found = [f for f in found if not f.startswith('/proc/1/cwd/')]\n"
        "    fds = [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')\n"
        "           if os.path.lexists(f'/proc/self/fd/{n}')]\n"
        "    found += [f for f in fds if 'socket' in f]\n"
        "    assert found == []\n"
    )
    result = forking.run(job_of(shop, {"tests/test_shop.py": probe}))
    assert result.exit_code == 0, result.output.decode()


def test_a_run_cannot_change_the_next(forking: BubblewrapSandbox, shop: Environment) -> None:
    vandal = (
        "import builtins, os, pathlib, sys, pytest, _pytest.runner\n"
        "def test():\n"
        "    builtins.len = _pytest.runner.runtestprotocol = None\n"
        "    for place in ('/tmp/left', '/dev/shm/left', '/testbed/left', '/out/left'):\n"
        "        pathlib.Path(place).write_text('x')\n"
        "    os.system('(sleep 60; touch /tmp/later) &')\n"
        "    for pid in range(1, 50):\n"
        "        try: os.kill(pid, 0) or pid == os.getpid() or os.kill(pid, 9)\n"
        "        except OSError: pass\n"
    )
    forking.run(job_of(shop, {"tests/test_shop.py": vandal}))
    looks = (
        "import os\ndef test():\n    assert len('ab') == 2\n"
        "    assert not any(os.path.exists(p + '/left') for p in "
        "('/tmp', '/dev/shm', '/testbed', '/out'))\n"
    )
    result = forking.run(job_of(shop, {"tests/test_shop.py": looks}))
    assert result.exit_code == 0, result.output.decode()


def test_a_dead_server_is_a_fault_and_is_replaced(shop: Environment) -> None:
    sandbox = BubblewrapSandbox(preload=True)
    try:
        pool = RetryingSandbox(sandbox)
        assert pool.run(job_of(shop)).exit_code == 0
        kill_servers()
        with pytest.raises(SandboxError):
            sandbox.run(job_of(shop))
        kill_servers()
        assert pool.run(job_of(shop)).exit_code == 0
        assert pool.num_retries <= 1
    finally:
        sandbox.close()
    assert servers() == []


def test_a_run_whose_server_dies_is_no_verdict(shop: Environment) -> None:
    sandbox = BubblewrapSandbox(preload=True)
    slow = {"tests/test_shop.py": "import time\ndef test():\n    time.sleep(90)\n"}
    try:
        sandbox.run(job_of(shop))
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(sandbox.run, job_of(shop, slow))
            time.sleep(1.0)
            kill_servers()
            with pytest.raises(SandboxError):
                future.result(timeout=60)
    finally:
        sandbox.close()


def test_an_environment_without_the_module_runs_plainly(
    forking: BubblewrapSandbox, environment: Environment
) -> None:
    job = Job(environment=environment, argv=("sh", "-c", "exit 5"), module=("no_such_runner",))
    assert forking.run(job).exit_code in (1, 5)


def test_the_least_recently_used_server_ends(
    forking: BubblewrapSandbox, shop: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfplay.sandbox.bubblewrap.forking.MAX_SERVERS", 2)
    for number in range(5):
        job = job_of(replace(shop, digest=f"other-{number}"))
        assert forking.run(job).exit_code == 0
    deadline = time.monotonic() + 60
    while len(servers()) > 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(servers()) <= 2


def servers() -> list[int]:
    """Pids of this process's servers (not of the runs in them)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and any(w == b"/fork_server.py" for w in words):
            found.append(int(entry.name))
    return found


def kill_servers() -> None:
    for pid in servers():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.3)
