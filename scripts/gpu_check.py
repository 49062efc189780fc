"""Program: everything that wants a GPU, measured in one go on a bare machine without network.

    python3 scripts/gpu_check.py --minutes 9 --out DIR --pack DIR [--unsafe] [--only compare,run]

The machine has Linux, Python, torch and transformers; what selfplay needs beyond that comes in the
folder that `gpu_pack.sh` filled elsewhere. Parts, in this order: environment, compare (GPU against
the CPU path), throughput (what the device can do, and what learner and sampler make of it), vllm
(a server as a run starts it, where --vllm names an interpreter that has it), run (self-play with
evaluation before and after). Each has its own process and time limit, and its
result is in DIR/results.json at once, so that a machine that goes away leaves what was there. One
part's failure never stops the next. Written to DIR: results.json, summary.txt, log.txt,
metrics.jsonl, adapter.tar.gz. The last line of stdout is the results as one JSON object. Nothing is
written to the checkout. This file uses the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(__file__).resolve().with_name("gpu_check_parts.py")
PARTS = ("environment", "compare", "throughput", "vllm", "run")
SHARES = {"compare": 0.2, "throughput": 0.38, "vllm": 0.5}
"""Largest part of all minutes for each; what is not used goes to the run."""
RESERVE_S = 12.0
"""Kept at the end for writing results."""


class Check:
    """One invocation: where things lie, how much time is left, what has been found."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.began = time.monotonic()
        self.total_s: float = 60.0 * arguments.minutes
        self.out: Path = arguments.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.work: Path = arguments.work.resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.work.chmod(0o755)
        self.log = (self.out / "log.txt").open("a", encoding="utf-8")
        self.results: dict[str, Any] = {"minutes": arguments.minutes, "seconds": {}, "failed": {}}
        self.variables = dict(os.environ)
        self.background: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self.sandbox = ""

    def left(self) -> float:
        """Seconds until everything must be written."""
        return self.total_s - RESERVE_S - (time.monotonic() - self.began)

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.began:6.1f} s] {text}\n"
        self.log.write(line)
        self.log.flush()
        sys.stderr.write(line)

    def keep(self, name: str, value: Any) -> None:
        """Put a result on disk, whole or not at all."""
        self.results[name] = value
        partial = self.out / "results.json.tmp"
        partial.write_text(json.dumps(self.results, indent=1, default=str), encoding="utf-8")
        partial.replace(self.out / "results.json")

    def start(self, argv: Sequence[str | Path], log: Path | None = None) -> subprocess.Popen[bytes]:
        """A process of its own session, that writes into the log (or a log of its own)."""
        with (log or self.out / "log.txt").open("ab") as stream:
            return subprocess.Popen(
                [str(word) for word in argv],
                cwd=self.work,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def wait(self, process: subprocess.Popen[bytes], limit_s: float) -> int | None:
        """Exit code, or None where it took longer than `limit_s`; nothing of it runs on."""
        try:
            return process.wait(max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process)

    def ask(self, name: str, limit_s: float, *words: str) -> Any:
        """What `gpu_check_parts.py NAME` writes; raises `RuntimeError` where it fails."""
        answer = self.work / f"{name}.json"
        answer.unlink(missing_ok=True)
        argv: list[str | Path] = [sys.executable, PROGRAM, name, answer, *words]
        code = self.wait(self.start(argv), limit_s)
        partial = json.loads(answer.read_text()) if answer.is_file() else None
        if code == 0 and partial is not None:
            return partial
        why = f"ran past its {limit_s:.0f} s" if code is None else f"exit code {code}"
        if partial is not None:
            self.results["failed"][name] = why
            return partial
        raise RuntimeError(f"{why}; its last words: {last_line(self.out / 'log.txt')}")


def end(process: subprocess.Popen[bytes]) -> None:
    """No process of that session is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(path: Path) -> str:
    text = path.read_text(errors="replace").replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines()]
    return next((line[-300:] for line in reversed(lines) if line), "none")


def main() -> int:
    check = Check(parse())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        play(check)
    finally:
        for process, _ in check.background.values():
            end(process)
        check.keep("total_s", round(time.monotonic() - check.began, 1))
        table = summary(check.results)
        (check.out / "summary.txt").write_text(table, encoding="utf-8")
        sys.stdout.write(f"{table}\n{json.dumps(check.results, default=str)}\n")
        sys.stdout.flush()
    return 0 if not check.results["failed"] else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path, help="folder that gpu_pack.sh filled")
    parser.add_argument("--work", type=Path, default=Path("/tmp/selfplay-gpu-check"))
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--unsafe",
        action="store_true",
        help="where no sandbox works, run the model's code without one: on a throwaway machine",
    )
    parser.add_argument("--device", default="cuda", help="cpu: a rehearsal")
    parser.add_argument("--vllm", default="", help="interpreter with vLLM; none: without that part")
    parser.add_argument("--steps", type=int, default=2000, help="most steps; time decides")
    parser.add_argument("overrides", nargs="*", help="further words for selfplay train")
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))}: use some of {', '.join(PARTS)}")
    if not arguments.vllm:
        arguments.only = ",".join(part for part in arguments.only.split(",") if part != "vllm")
    return arguments


def play(check: Check) -> None:
    """All parts, one after the other."""
    wanted = check.arguments.only.split(",")
    steps = {"environment": environment, "run": self_play}
    for name in PARTS:
        if name not in wanted and name != "environment":
            continue
        began = time.monotonic()
        check.say(f"{name}: begins")
        try:
            if name in steps:
                steps[name](check)
            else:
                limit_s = min(SHARES[name] * check.total_s, check.left())
                python = [check.arguments.vllm] if name == "vllm" else []
                check.keep(name, check.ask(name, limit_s, check.arguments.device, *python))
        except Exception as error:  # a part of the check is the boundary: the next one goes on
            check.results["failed"][name] = f"{type(error).__name__}: {error}"
        check.results["seconds"][name] = round(time.monotonic() - began, 1)
        check.keep("ended", name)
        why = check.results["failed"].get(name)
        check.say(f"{name}: {f'FAILED: {why}' if why else 'done'}")


# --- environment ---------------------------------------------------------------------------------


def environment(check: Check) -> None:
    """The machine, the unpacked parts, a sandbox that works; repositories start to be prepared."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "gpu": said(["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv"]),
        "git": said(["git", "--version"]),
        "bwrap": said(["bwrap", "--version"]),
        "user": os.geteuid(),
    }
    check.keep("environment", found)
    check.variables |= {
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "SELFPLAY_CACHE": str(check.work / "cache"),
        "PYTHONPATH": f"{ROOT}",
    }
    if check.arguments.pack is not None:
        unpack(check, found)
    if not found["git"] and (check.work / "pack" / "git" / "bin" / "git").is_file():
        check.variables["PATH"] = f"{check.work}/pack/git/bin:{os.environ['PATH']}"
        os.environ["PATH"] = check.variables["PATH"]
        found["git"] = f"{said(['git', '--version'])} (from the pack)"
    found |= check.ask("sandbox", min(150.0, check.left()))
    check.sandbox = found["sandbox"] or ("unsafe" if check.arguments.unsafe else "")
    if not found["sandbox"]:
        found["WARNING"] = (
            "no sandbox works here; code of the model runs WITHOUT PROTECTION (--unsafe)"
            if check.sandbox
            else "no sandbox works here and --unsafe was not given: no self-play run"
        )
        check.say(found["WARNING"])
    if "run" in check.arguments.only.split(","):
        prepare_repos(check)
    found["model"] = check.ask("model", min(150.0, check.left()), model_name(check))["model"]
    check.variables["GPU_CHECK_MODEL"] = found["model"]
    check.keep("environment", found)


def unpack(check: Check, found: dict[str, Any]) -> None:
    """Join the parts, verify each, lay the wheels into a folder outside the checkout."""
    pack: Path = check.arguments.pack
    folder, site = check.work / "pack", check.work / "site"
    manifest = json.loads((pack / "manifest.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    done = check.work / "unpacked"
    if not (done.is_file() and done.read_text() == digest):
        for place in (folder, site):
            shutil.rmtree(place, ignore_errors=True)
        archive = check.work / "pack.tar"
        with archive.open("wb") as stream:
            for part in manifest["parts"]:
                content = (pack / part["name"]).read_bytes()
                if hashlib.sha256(content).hexdigest() != part["sha256"]:
                    raise RuntimeError(f"{pack / part['name']}: not what the manifest says")
                stream.write(content)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()
        wheels = sorted((folder / "wheels").glob("*.whl"))
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        pip += ["--no-compile", "--no-cache-dir", "--upgrade", "--target", str(site)]
        code = check.wait(check.start([*pip, *wheels]), 90.0)
        if code != 0:
            raise RuntimeError(f"pip cannot install the wheels: {last_line(check.out / 'log.txt')}")
        done.write_text(digest)
    found["pack"] = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    found["pack"].pop("files", None)
    check.variables |= {
        "PYTHONPATH": f"{ROOT}:{site}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "index"),
    }
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        check.variables.pop(name, None)


def said(argv: list[str]) -> str:
    """What a command prints, "" where there is none or it fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20.0)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def model_name(check: Check) -> str:
    pack = check.results["environment"].get("pack", {})
    named = pack.get("model", "smollm2-135m")
    return str(check.work / "pack" / "model") if named == "model" else str(named)


def prepare_repos(check: Check) -> None:
    """All at once, while the GPU is measured; each with a log of its own."""
    pack = check.results["environment"].get("pack", {})
    for name in pack.get("repos", []) if check.sandbox else []:
        argv = [sys.executable, "-m", "selfplay", "repos", "prepare", f"repo={name}"]
        argv += [f"sandbox={check.sandbox}", f"repos.directory={ROOT / 'repos'}"]
        started = check.start(argv, check.work / f"prepare-{name}.log")
        check.background[name] = (started, time.monotonic())


# --- self-play -----------------------------------------------------------------------------------


def self_play(check: Check) -> None:
    """`selfplay train` with evaluation before and after, for all the time that is left."""
    if not check.sandbox:
        raise RuntimeError("no sandbox works here; --unsafe runs without one")
    ready: dict[str, bool] = {}
    for name, (process, _) in check.background.items():
        ready[name] = check.wait(process, min(120.0, check.left() / 3)) == 0
        if not ready[name]:
            log = (check.work / f"prepare-{name}.log").read_text(errors="replace")
            check.say(f"{name} is not ready:\n{log[-2000:]}")
    check.background.clear()
    run_dir = check.work / "runs" / "gpu_check"
    shutil.rmtree(run_dir, ignore_errors=True)
    argv = [
        sys.executable, "-m", "selfplay", "train", "experiment=one_gpu_small", "name=gpu_check",
        f"runs_dir={run_dir.parent}", f"steps={check.arguments.steps}",
        f"max_minutes={max(0.5, check.left() / 60 - 0.1):.2f}", f"sandbox={check.sandbox}",
        f"repos.directory={ROOT / 'repos'}", f"policy.model={model_name(check)}",
        f"evaluation.suite={ROOT / 'repos' / 'suites' / 'heldout.jsonl'}",
        f"policy.device={check.arguments.device}", "json=true", *check.arguments.overrides,
    ]  # fmt: skip
    process, limit = check.start(argv), time.monotonic() + check.left()
    found: dict[str, Any] = {"repos_ready": ready, "sandbox": check.sandbox}
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(2.0)
        found |= collect_run(check, run_dir)
        check.keep("run", found)
    code = check.wait(process, 1.0)
    found |= collect_run(check, run_dir) | {"exit_code": code}
    check.keep("run", found)
    keep_adapter(check, run_dir)
    if code != 0:
        why = "cut off" if code is None else f"exit code {code}"
        raise RuntimeError(f"{why}: {last_line(check.out / 'log.txt')}")


def collect_run(check: Check, run_dir: Path) -> dict[str, Any]:
    """Figures of a run as it stands, from its directory; its metrics are copied beside them."""
    found: dict[str, Any] = {}
    metrics = run_dir / "metrics.jsonl"
    if metrics.is_file():
        shutil.copy(metrics, check.out / "metrics.jsonl")
        found["steps"] = len(metrics.read_bytes().splitlines())
    for when in ("before", "after"):
        file = run_dir / f"eval_{when}.json"
        if file.is_file():
            document = json.loads(file.read_text(encoding="utf-8"))
            found[f"eval_{when}"] = {k: v for k, v in document.items() if k != "tasks"}
    if (run_dir / "summary.json").is_file():
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        found["summary"] = {k: v for k, v in summary.items() if not k.startswith("eval_")}
    return found


def keep_adapter(check: Check, run_dir: Path) -> None:
    """The trained adapter and the evaluations as a tar; what is over 15 MiB stays out."""
    weights = sorted((run_dir / "weights").glob("step_*"), key=lambda p: int(p.name[5:]))
    with tarfile.open(check.out / "adapter.tar.gz", "w:gz") as tar:
        for path in (*weights[-1:], *run_dir.glob("eval_*.json"), run_dir / "config.yaml"):
            if path.exists():
                tar.add(path, arcname=path.name)


# --- what a person reads -------------------------------------------------------------------------


def summary(results: dict[str, Any]) -> str:
    """One table: every figure of every part, flat."""
    rows: list[tuple[str, str]] = []

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}" if name else str(key), inner)
        elif isinstance(value, float):
            rows.append((name, f"{value:.4g}"))
        else:
            rows.append((name, str(value).replace("\n", " | ")[:160]))

    walk("", results)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
