"""Proves an export with the other tool's own code: its grading must agree with ours.

    python scripts/ecosystem.py runs OUT            # our environment: runs each bug's tests thrice
    PYTHON_OF_SWESMITH scripts/ecosystem.py swesmith OUT     # an environment with swesmith alone

`runs` takes a swesmith export and writes OUT/logs/ID/{gold,empty,wrong}.txt, what the bug's script
prints with the gold patch, none and one that mends nothing, and OUT/logs/ours.json, our verdicts.
`swesmith` lets SWE-smith's registered profiles read the logs and compares. The last line of stdout
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

KINDS = ("gold", "empty", "wrong")
START, END = (f"+ : '>>>>> {word} Test Output'\n" for word in ("Start", "End"))


def runs(out: Path) -> dict[str, Any]:
    """Verdicts of ours, and the logs that the other tool reads."""
    from selfplay.bugs.grading.grade import grade
    from selfplay.bugs.patches.diffs import reverse_patch
    from selfplay.bugs.patches.layers import apply_patch
    from selfplay.bugs.test_runs.runner import TestRunner
    from selfplay.commands.compose import sandbox_pool
    from selfplay.commands.suites import suite_environments
    from selfplay.config import ReposConfig, SandboxConfig
    from selfplay.corpus.suite import read_suite
    from selfplay.export.swesmith import to_instance

    tasks, ours = read_suite(out / "suite.jsonl"), {}
    with sandbox_pool(SandboxConfig(name="bubblewrap")) as pool:
        environments = suite_environments(tasks, ReposConfig(), pool)
        for suite_task in tasks:
            task, environment = suite_task.solve_task, environments[suite_task.solve_task.repo]
            runner, artifact = TestRunner(pool.sandbox, environment), task.artifact
            wrong = wrong_patch(environment.tree, artifact.bug_patch)
            patches = {"gold": reverse_patch(artifact.bug_patch), "empty": "", "wrong": wrong}
            name = to_instance(suite_task)["instance_id"]
            ours[name] = {
                kind: grade(task, patch, runner).resolved for kind, patch in patches.items()
            }
            folder = out / "logs" / name
            folder.mkdir(parents=True, exist_ok=True)
            for kind, patch in patches.items():
                bug = apply_patch(environment.tree, {}, artifact.bug_patch)
                layer = apply_patch(environment.tree, bug, patch) if patch else bug
                words = (artifact.test_script, artifact.test_parser, layer)
                ran = runner.run(*words, timeout_s=task.limits.script_timeout_s)
                (folder / f"{kind}.txt").write_text(f"{START}{ran.output}{END}", errors="replace")
    (out / "logs" / "ours.json").write_text(json.dumps(ours, indent=1) + "\n")
    return {"num_bugs": len(ours), **{k: sum(v[k] for v in ours.values()) for k in KINDS}}


def wrong_patch(tree: Path, bug_patch: str) -> str:
    """A patch that adds a file of no use beside the buggy one."""
    from selfplay.bugs.patches.diffs import touched_files
    from selfplay.bugs.patches.layers import apply_patch, make_patch
    from selfplay.types import FileChange

    bug = apply_patch(tree, {}, bug_patch)
    path = str(Path(touched_files(bug_patch)[0]).with_name("notes_of_mine.txt"))
    return make_patch(tree, bug, {**bug, path: FileChange(content=b"It works on my machine.\n")})


def swesmith(out: Path) -> dict[str, Any]:
    """SWE-smith's verdicts on the logs, by its registered profiles and its own report."""
    sys.path.insert(0, str(out))
    import profiles  # type: ignore[import-not-found]  # noqa: F401  (registers them)
    from swesmith.harness.grading import get_eval_report

    ours = json.loads((out / "logs" / "ours.json").read_text())
    rows = [json.loads(line) for line in (out / "tasks.jsonl").read_text().splitlines()]
    differ, counts = [], dict.fromkeys(KINDS, 0)
    for row in rows:
        for kind in KINDS:
            log = out / "logs" / row["instance_id"] / f"{kind}.txt"
            report = get_eval_report({"model_patch": kind}, row, str(log))
            counts[kind] += report["resolved"]
            if report["resolved"] != ours[row["instance_id"]][kind]:
                differ.append([row["instance_id"], kind])
    return {"num_bugs": len(rows), **counts, "differ": differ}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("runs", "swesmith"))
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    result = {"runs": runs, "swesmith": swesmith}[arguments.what](arguments.out)
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if result.get("differ") else 0


if __name__ == "__main__":
    sys.exit(main())
