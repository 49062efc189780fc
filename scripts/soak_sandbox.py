"""Thousands of runs while somebody kills the machinery: nothing lost, mis-scored or left behind.

    python scripts/soak_sandbox.py [--runs 2000] [--seed 0] [--kinds bubblewrap,forked,docker]

Every run has an answer that is known beforehand (output, exit code, a file in /out). Meanwhile, at
random moments, sandboxes' own processes are killed: bwrap monitors, interpreters to fork from, and
a Docker engine that this script starts for itself (as root; else Docker is left out). A run may
end in its right answer, or in `SandboxError`: then it is repeated. Any other answer is mis-scored.
At the end no process, mount, cgroup, container or file of ours may be left.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from selfplay.cache import cache_root
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.bubblewrap.cgroup import find_controllers
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.owner import owner_token
from selfplay.sandbox.select import PATH
from selfplay.types import FileChange

MAX_REPEATS = 60
PAUSE_S = {"bwrap": 0.6, "server": 1.5, "dockerd": 20.0}
"""Mean pause between two kills of a kind."""


class Engine:
    """A Docker engine of our own, which may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, f"unix://{folder}/docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start dockerd until one answers: as any service manager would, again if it ends."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                self._launch()
            with suppress(subprocess.TimeoutExpired):
                words = ["docker", "-H", self.socket, "info"]
                if subprocess.run(words, capture_output=True, timeout=20).returncode == 0:
                    return
            time.sleep(0.25)
        raise SystemExit(f"dockerd did not start: see {self.folder}/dockerd.log")

    def _launch(self) -> None:
        self._await_end_of_containerd()
        (self.folder / "docker.pid").unlink(missing_ok=True)
        words = ["dockerd", "-H", self.socket, "--data-root", str(self.folder / "data")]
        words += ["--exec-root", str(self.folder / "exec"), "--bridge=none", "--iptables=false"]
        words += ["--pidfile", str(self.folder / "docker.pid"), "--ip-masq=false"]
        with (self.folder / "dockerd.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def _await_end_of_containerd(self) -> None:
        """A killed dockerd takes its containerd along, a moment later; one that starts in between,
        or finds the pid of one that nobody reaped, waits 15 s for it and gives up."""
        deadline = time.monotonic() + 10
        file = self.folder / "exec/containerd/containerd.pid"
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            while b"containerd" in command(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
            file.unlink()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start()

    def close(self) -> None:
        assert self.process is not None
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        subprocess.run(["pkill", "-KILL", "-f", str(self.folder)], check=False)
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            if str(self.folder) in line:
                subprocess.run(["umount", "-l", line.split()[1]], check=False)


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(p) for task in tasks for p in (task / "children").read_text().split()] or [
            int(p) for p in text.split()
        ]
    except OSError:
        return []


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def kill_one(kind: str, rng: random.Random, engine: Engine | None) -> bool:
    """Kill one process of a kind; whether there was any."""
    if kind == "dockerd":
        assert engine is not None
        engine.kill()
        return True
    bwraps = [pid for pid in children(os.getpid()) if b"bwrap" in command(pid)]
    chosen = [p for p in bwraps if (b"/fork_server.py" in command(p)) == (kind == "server")]
    if not chosen:
        return False
    with suppress(ProcessLookupError):
        os.kill(rng.choice(chosen), signal.SIGKILL)
    return True


def killer(
    kind: str, seed: int, engine: Engine | None, stop: threading.Event, kills: Counter[str]
) -> None:
    rng = random.Random(f"{seed}/{kind}")
    while not stop.wait(rng.expovariate(1 / PAUSE_S[kind])):
        kills[kind] += kill_one(kind, rng, engine)


def one_run(sandbox: Sandbox, environment: Environment, number: int, seed: int) -> tuple[str, int]:
    """(lost, mis-scored or right; repeats) of one job."""
    rng = random.Random(f"{seed}/{number}")
    code, text = rng.choice([0, 1, 3, 77]), f"run {number} {rng.random()}"
    pause = rng.choice([0.0, 0.0, 0.05, 0.3])
    program = (
        f"import os, pathlib, time; time.sleep({pause}); print(open('file').read(), flush=True);"
        f" pathlib.Path('/out/kept').write_text('{number}'); os._exit({code})"
    )
    job = Job(
        environment=environment,
        argv=("python3", "-c", program),
        module=("timeit", "-n", "1", "-r", "1", "-s", program),
        layer={"file": FileChange(content=text.encode())},
        quota=Quota(timeout_s=60.0),
    )
    for repeats in range(MAX_REPEATS):
        try:
            result = sandbox.run(job)
        except SandboxError as error:
            logging.info("run %d: %s", number, error)
            time.sleep(0.1 * min(repeats, 10))
            continue
        right = (code, f"{text}\n".encode(), {"kept": str(number).encode()})
        got = (result.exit_code, result.output, dict(result.files))
        if got == right and not result.timed_out:
            return "right", repeats
        logging.error("run %d: wanted %s, got %s", number, right, got)
        return "mis-scored", repeats
    return "lost", MAX_REPEATS


def left_behind(before: set[str]) -> list[str]:
    """Processes, mounts, cgroups and files of ours that are still there."""
    token = owner_token()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = [f"process {command(p)[:80]!r}" for p in pids if token.encode() in command(p)]
    found += [f"mount {line}" for line in mounts() - before]
    for folder in (cache_root() / "scratch", *find_controllers()):
        with suppress(FileNotFoundError):
            found += [f"{folder}/{e.name}" for e in folder.iterdir() if e.name.startswith(token)]
    return found


def mounts() -> set[str]:
    """Lines of /proc/mounts, but those of the machine's own engine, which others use meanwhile."""
    lines = Path("/proc/mounts").read_text().splitlines()
    return {n for n in lines if not n.split()[1].startswith(("/var/lib/docker/", "/run/docker/"))}


def containers(engine: Engine) -> list[str]:
    words = ["docker", "-H", engine.socket, "ps", "-aq"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [f"container {name}" for name in done.stdout.split()]


@contextmanager
def engine_of_our_own(wanted: bool) -> Iterator[Engine | None]:
    if not wanted or os.geteuid() != 0 or shutil.which("dockerd") is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="selfplay-soak-"))
    folder.chmod(0o755)
    engine = Engine(folder)
    os.environ["DOCKER_HOST"] = engine.socket
    try:
        yield engine
    finally:
        engine.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--kinds", default="bubblewrap,forked,docker")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("selfplay").setLevel(logging.CRITICAL)
    kinds = options.kinds.split(",")
    outcomes: Counter[str] = Counter()
    kills: Counter[str] = Counter()
    repeats, began = 0, time.monotonic()
    left: list[str] = []
    with engine_of_our_own("docker" in kinds) as engine, ExitStack() as stack:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfplay-soak-tree-")))
        tree.chmod(0o755)
        (tree / "file").write_text("original")
        make_readable(tree)
        before = mounts()
        path = f"{sys.base_prefix}/bin:{PATH}"
        environment = Environment(tree=tree, mounts=host_mounts(), path=path, digest="soak")
        sandboxes: list[Sandbox] = []
        if "bubblewrap" in kinds:
            sandboxes.append(BubblewrapSandbox())
        if "forked" in kinds:
            sandboxes.append(BubblewrapSandbox(preload=True))
        if engine is not None:
            from selfplay.sandbox.docker.sandbox import DockerSandbox

            sandboxes.append(DockerSandbox())
        stop = threading.Event()
        threads = [
            threading.Thread(target=killer, args=(kind, options.seed, engine, stop, kills))
            for kind in PAUSE_S
            if engine is not None or kind != "dockerd"
        ]
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(options.workers) as pool:
            jobs = (
                pool.submit(one_run, sandboxes[i % len(sandboxes)], environment, i, options.seed)
                for i in range(options.runs)
            )
            for future in tqdm(list(jobs), unit="run"):
                outcome, again = future.result()
                outcomes[outcome] += 1
                repeats += again
        stop.set()
        for thread in threads:
            thread.join()
        for sandbox in sandboxes:
            sandbox.close()
        left = left_behind(before) + (containers(engine) if engine is not None else [])
    document = {
        "runs": options.runs,
        "lost": outcomes["lost"],
        "mis_scored": outcomes["mis-scored"],
        "repeated": repeats,
        "kills": dict(kills),
        "left_behind": left,
        "wall_s": round(time.monotonic() - began, 1),
    }
    sys.stdout.write(json.dumps(document) + "\n")
    return int(outcomes["right"] != options.runs or bool(left))


if __name__ == "__main__":
    sys.exit(main())
