"""Proves an export with the other tool's own code: its grading must agree with ours.

    selfplay export run=RUN format=harbor out=OUT    # holds suite.jsonl and tasks/
    python scripts/ecosystem.py runs OUT             # our environment: our verdicts, patches, logs
    python scripts/ecosystem.py images OUT           # only where no registry of images is reached
    python scripts/ecosystem.py harbor OUT           # `harbor` and `docker compose` on the PATH
    PYTHON scripts/ecosystem.py swebench OUT         # Docker, an environment with swebench 5
    PYTHON scripts/ecosystem.py swesmith OUT         # one with swesmith; OUT of format=swesmith

Each bug is graded three times: with the gold patch, with none, and with a wrong one (a comment in
the buggy file). `runs`, which goes on where it was killed, writes OUT/logs/ours.json, our verdicts
by bug id, and in OUT/logs/ID/ each KIND.diff and KIND.txt (what the bug's script prints) and wrong/
(the files of the wrong patch). The others compare with it. `images` makes Debian images of the
names that the tasks ask for, by debootstrap, with the packages' wheels in them. The last line of
stdout is one JSON object; exit code 1 where verdicts differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = ("gold", "empty", "wrong")
Verdicts = dict[str, dict[str, bool]]
START, END = (f"+ : '>>>>> {word} Test Output'\n" for word in ("Start", "End"))


def runs(out: Path) -> dict[str, Any]:
    """Verdicts of ours, the patches, and the logs that SWE-smith reads."""
    from selfplay.bugs.grading.grade import grade
    from selfplay.bugs.patches.diffs import reverse_patch
    from selfplay.bugs.patches.layers import apply_patch, make_patch
    from selfplay.bugs.test_runs.runner import TestRunner
    from selfplay.commands.compose import sandbox_pool
    from selfplay.commands.suites import suite_environments
    from selfplay.config import ReposConfig, SandboxConfig
    from selfplay.corpus.suite import read_suite

    done = out / "logs" / "ours.json"
    ours: Verdicts = json.loads(done.read_bytes()) if done.is_file() else {}
    tasks = [t for t in read_suite(out / "suite.jsonl") if key(t.solve_task.bug_id) not in ours]
    with sandbox_pool(SandboxConfig(name="bubblewrap")) as pool:
        environments = suite_environments(tasks, ReposConfig(), pool)
        for suite_task in tasks:
            task, environment = suite_task.solve_task, environments[suite_task.solve_task.repo]
            runner, artifact = TestRunner(pool.sandbox, environment), task.artifact
            bug = apply_patch(environment.tree, {}, artifact.bug_patch)
            wrong = with_comment(environment.tree, bug)
            patches = {"gold": reverse_patch(artifact.bug_patch), "empty": ""}
            patches["wrong"] = make_patch(environment.tree, bug, {**bug, **wrong})
            verdicts = {k: grade(task, patch, runner).resolved for k, patch in patches.items()}
            files = {f"wrong/{path}": change.content or b"" for path, change in wrong.items()}
            for kind, patch in patches.items():
                layer = apply_patch(environment.tree, bug, patch) if patch else bug
                words = (artifact.test_script, artifact.test_parser, layer)
                ran = runner.run(*words, timeout_s=task.limits.script_timeout_s)
                log = f"{START}{ran.output}{END}".encode(errors="replace")
                files |= {f"{kind}.txt": log, f"{kind}.diff": patch.encode()}
            for name, content in files.items():
                write(out / "logs" / key(task.bug_id) / name, content)
            ours[key(task.bug_id)] = verdicts
            write(done, json.dumps(ours, indent=1).encode() + b"\n")
    return {"num_bugs": len(ours), **{k: sum(v[k] for v in ours.values()) for k in KINDS}}


def with_comment(tree: Path, bug: Mapping[str, Any]) -> dict[str, Any]:
    """The first buggy file with a comment at its end, as Python and Perl write one."""
    from selfplay.bugs.patches.layers import read_file
    from selfplay.types import FileChange

    for path in bug:
        if content := read_file(tree, bug, path):
            return {path: FileChange(content=content.rstrip(b"\n") + b"\n# It works for me.\n")}
    raise SystemExit(f"a bug that only deletes: {sorted(bug)}")


def swesmith(out: Path) -> dict[str, Any]:
    """SWE-smith's verdicts on the logs, by its registered profiles and its own report."""
    sys.path.insert(0, str(out))
    import profiles  # type: ignore[import-not-found]  # noqa: F401  (registers them)
    from swesmith.harness.grading import get_eval_report

    theirs: Verdicts = {}
    for line in (out / "tasks.jsonl").read_text().splitlines():
        row = json.loads(line)
        bug_id = row["instance_id"].rpartition(".")[2]
        theirs[bug_id] = {}
        for kind in KINDS:
            log = str(out / "logs" / bug_id / f"{kind}.txt")
            report = get_eval_report({"model_patch": kind}, row, log)
            theirs[bug_id][kind] = bool(report["resolved"])
    return compared(out, theirs)


def harbor(out: Path) -> dict[str, Any]:
    """Harbor's rewards: its oracle and no-op agents, and the oracle where the solution is wrong."""
    wrong = out / "tasks_wrong"
    for task in (out / "tasks").iterdir():
        shutil.copytree(task, wrong / task.name, dirs_exist_ok=True)
        shutil.rmtree(wrong / task.name / "solution" / "fixed")
        files = out / "logs" / key(task.name) / "wrong"
        shutil.copytree(files, wrong / task.name / "solution" / "fixed")
    played = {"gold": ("tasks", "oracle"), "empty": ("tasks", "nop")}
    theirs: Verdicts = {}
    for kind, (folder, agent) in {**played, "wrong": ("tasks_wrong", "oracle")}.items():
        words = ["harbor", "run", "-y", "-p", str(out / folder), "-a", agent, "-n", "2"]
        if not (out / "jobs" / kind / "result.json").is_file():
            subprocess.run([*words, "-o", str(out / "jobs"), "--job-name", kind], check=True)
        for file in (out / "jobs" / kind).glob("*/result.json"):
            trial = json.loads(file.read_text())
            rewards = (trial["verifier_result"] or {}).get("rewards")
            if rewards is not None and not trial["exception_info"]:
                bug_id = Path(trial["task_id"]["path"]).name
                theirs.setdefault(key(bug_id), {})[kind] = rewards["reward"] == 1.0
    return compared(out, theirs)


def swebench(out: Path) -> dict[str, Any]:
    """The verdicts of SWE-bench's harness, on an image of each task with git in it."""
    rows = [json.loads(line) for line in (out / "suite.jsonl").read_text().splitlines()]
    folder = (out / "swebench").resolve()
    for row in rows:
        context = out / "tasks" / row["instance_id"] / "environment"
        row["image"] = f"selfplay/{row['instance_id'].lower()}:proof"
        git = "git -c user.name=selfplay -c user.email=selfplay@localhost"
        file = (context / "Dockerfile").read_text()
        file += f"RUN git init -q && git add -A -f && {git} commit -q -m bug\n"
        words = ["docker", "build", "-q", "-t", row["image"], "-f", "-", str(context)]
        subprocess.run(words, input=file.encode(), check=True, stdout=subprocess.DEVNULL)
    write(folder / "suite.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    theirs: Verdicts = {key(row["instance_id"]): {} for row in rows}
    for kind in KINDS:
        answers = [
            {
                "instance_id": row["instance_id"],
                "model_name_or_path": kind,
                "model_patch": (
                    out / "logs" / key(row["instance_id"]) / f"{kind}.diff"
                ).read_text(),
            }
            for row in rows
        ]
        text = "".join(f"{json.dumps(answer)}\n" for answer in answers)
        write(folder / f"{kind}.jsonl", text.encode())
        words = [sys.executable, "-m", "swebench.harness.run_evaluation", "--run_id", "proof"]
        words += ["-d", "suite.jsonl", "-p", f"{kind}.jsonl", "--max_workers", "2"]
        subprocess.run(words, cwd=folder, check=True, stdout=sys.stderr)
        report = json.loads((folder / f"{kind}.proof.json").read_text())
        judged = {*report["resolved_ids"], *report["unresolved_ids"], *report["empty_patch_ids"]}
        for name in judged:
            theirs[key(name)][kind] = name in report["resolved_ids"]
    return compared(out, theirs)


def images(out: Path) -> dict[str, Any]:
    """Make what the tasks' Dockerfiles begin with where Docker does not have it; needs root."""
    files = [task / "environment" for task in (out / "tasks").iterdir()]
    firsts = [file for folder in files for file in (folder / "Dockerfile").read_text().splitlines()]
    names = sorted({line.removeprefix("ARG BASE=") for line in firsts if "ARG BASE=" in line})
    have = ["docker", "image", "inspect"]
    missing = [n for n in names if subprocess.run([*have, n], capture_output=True).returncode]
    if missing:
        root = out / "rootfs"
        with_packages = "--include=python3,python3-pip,git,ca-certificates"
        words = ["debootstrap", "--variant=minbase", with_packages, "bookworm", str(root)]
        subprocess.run(words, check=True, stdout=sys.stderr)
        pins = {
            p for folder in files for p in (folder / "requirements.txt").read_text().split("\n")
        }
        write(root / "wheels" / "all.txt", "\n".join(sorted(pins)).encode())
        words = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            str(root / "wheels"),
        ]
        subprocess.run([*words, "-r", str(root / "wheels" / "all.txt")], check=True)
        told = ["--change", "ENV PIP_NO_INDEX=1", "--change", "ENV PIP_FIND_LINKS=/wheels"]
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as tar:
            words = ["docker", "import", *told, "-", missing[0]]
            subprocess.run(words, stdin=tar.stdout, check=True, stdout=sys.stderr)
        for name in missing[1:]:
            subprocess.run(["docker", "tag", missing[0], name], check=True)
        shutil.rmtree(root)
    return {"made": missing, "had": [name for name in names if name not in missing]}


def compared(out: Path, theirs: Verdicts) -> dict[str, Any]:
    """How many each resolved, and where a verdict is another than ours or there is none."""
    ours: Verdicts = json.loads((out / "logs" / "ours.json").read_text())
    counts = {kind: sum(v.get(kind, False) for v in theirs.values()) for kind in KINDS}
    differ = [
        [bug_id, kind, theirs.get(bug_id, {}).get(kind)]
        for bug_id, verdicts in ours.items()
        for kind, verdict in verdicts.items()
        if theirs.get(bug_id, {}).get(kind) is not verdict
    ]
    return {"num_bugs": len(ours), **counts, "differ": differ}


def key(bug_id: str) -> str:
    """A bug's id as SWE-smith can take apart."""
    return bug_id.replace(".", "-")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def main() -> int:
    tools = {"runs": runs, "images": images, "harbor": harbor}
    tools |= {"swebench": swebench, "swesmith": swesmith}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=tools)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    result = tools[arguments.what](arguments.out)
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result.get("differ") else 0


if __name__ == "__main__":
    sys.exit(main())
