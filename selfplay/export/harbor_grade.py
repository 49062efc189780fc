"""Grades a repair inside a Harbor task: 1 where every test that must pass passes, else 0.

    python3 grade.py LOGS      # writes LOGS/reward.txt and LOGS/tests.json

What an answer left in the way of the tests, or wrote as its own reward, is removed. A fault of the
machine (no shell, a full disk) leaves no reward, which Harbor reports as an error.
Standard library alone: it is copied into the tasks and runs in their images.
"""

import base64
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = Path("/testbed")
MAX_FILE = 256 << 20
"""Bytes of one file that the tests write, and of their output; as in the sandboxes of selfplay."""


def main(logs: Path) -> int:
    remove(logs / "reward.txt")
    request = json.loads((HERE / "request.json").read_text(encoding="utf-8"))
    for name, target in request["links"].items():
        make_way(name).symlink_to(target)
    for name, content in request["original"].items():
        place = make_way(name)
        if content is not None:
            place.write_bytes(base64.b64decode(content))
            place.chmod(0o755 if name in request["executable"] else 0o644)
    table = results(request["timeout_s"])
    wanted = [*request["FAIL_TO_PASS"], *request["PASS_TO_PASS"]]
    shown = {test: table.get(test, "missing") for test in wanted}
    resolved = bool(wanted) and all(status == "passed" for status in shown.values())
    logs.mkdir(parents=True, exist_ok=True)
    remove(logs / "tests.json")
    (logs / "tests.json").write_text(json.dumps(shown, indent=1) + "\n")
    remove(logs / "reward.txt")
    (logs / "reward.txt").write_text(f"{int(resolved)}\n")
    return 0


def make_way(name: str) -> Path:
    """Where a file of this name goes, with nothing there and real folders above it."""
    place = TREE
    for part in Path(name).parts[:-1]:
        place /= part
        if place.is_symlink() or not place.is_dir():
            remove(place)
            place.mkdir()
    remove(TREE / name)
    return TREE / name


def remove(place: Path) -> None:
    """A file, a link or a whole folder; nothing where there is none."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def results(timeout_s: float) -> dict[str, str]:
    """{test id: "passed" or "failed"}; {} where the run or its parser did not end well."""
    try:
        read = subprocess.run(
            [sys.executable, "-I", str(HERE / "test_parser.py")],
            input=output(timeout_s),
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        table = json.loads(read.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        sys.stderr.write(f"no results: {error}\n")
        return {}
    return table if isinstance(table, dict) else {}


def output(timeout_s: float) -> bytes:
    """What the script prints until it ends; what it leaves running is killed. To a file, since a
    pipe stays open as long as anything that it started. Raises `TimeoutExpired`."""
    with tempfile.TemporaryFile() as log:
        script = subprocess.Popen(
            ["bash", str(HERE / "test_script.sh")],
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=bounded,
        )
        try:
            script.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(script.pid, signal.SIGKILL)
            script.wait()
        log.seek(0)
        return log.read()


def bounded() -> None:
    """In the script's process: an answer whose tests print without end would fill the disk or the
    memory that its reward needs, and end as a fault of the machine."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    size = MAX_FILE if hard == resource.RLIM_INFINITY else min(MAX_FILE, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
