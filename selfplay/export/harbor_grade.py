"""Grades a repair inside a Harbor task: 1 where every test that must pass passes, else 0.

    python3 grade.py LOGS      # writes LOGS/reward.txt and LOGS/tests.json

Standard library alone: it is copied into the tasks and runs in their images.
"""

import base64
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = Path("/testbed")


def main(logs: Path) -> int:
    request = json.loads((HERE / "request.json").read_text(encoding="utf-8"))
    for name, content in request["original"].items():
        place = TREE / name
        if place.is_symlink() or place.exists():
            place.unlink()
        if content is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(base64.b64decode(content))
    table = results(request["timeout_s"])
    wanted = [*request["FAIL_TO_PASS"], *request["PASS_TO_PASS"]]
    shown = {test: table.get(test, "missing") for test in wanted}
    resolved = bool(wanted) and all(status == "passed" for status in shown.values())
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "tests.json").write_text(json.dumps(shown, indent=1) + "\n")
    (logs / "reward.txt").write_text(f"{int(resolved)}\n")
    return 0


def results(timeout_s: float) -> dict[str, str]:
    """{test id: "passed" or "failed"}; {} where the run or its parser did not end well."""
    script, parser = HERE / "test_script.sh", HERE / "test_parser.py"
    try:
        ran = subprocess.run(
            ["bash", str(script)],
            cwd=TREE,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
        read = subprocess.run(
            [sys.executable, "-I", str(parser)],
            input=ran.stdout,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        table = json.loads(read.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        sys.stderr.write(f"no results: {error}\n")
        return {}
    return table if isinstance(table, dict) else {}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
