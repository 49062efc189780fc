"""Put held-out bugs together into two suites that are apart by repository.

    python scripts/heldout_suite.py --tune NAME,... --out repos/suites FILE ...

FILE: suites of `selfplay export` and `selfplay mine`. `heldout-tune.jsonl` gets the repositories of
`--tune`, on which settings may be chosen; `heldout-final.jsonl` the others, which are read when
everything is decided. A project that a shipped configuration or adapter learned from is refused,
and so is a bug without a public source and a licence. What is in each is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from selfplay.bug_sources.commit_trees import split_name
from selfplay.corpus.suite import SuiteTask, read_suite, write_suite
from selfplay.errors import SelfplayError, UserError
from selfplay.repo.spec import GitSource, PypiSource, projects_of, spec_from

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Read, check, part, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tune", required=True, help="repositories, with commas between them")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    tune = set(options.tune.split(","))
    tasks: dict[str, SuiteTask] = {}
    for file in options.files:
        for task in read_suite(file):
            tasks.setdefault(task.solve_task.bug_id, marked(task))
    trained = trained_projects(ROOT)
    for task in tasks.values():
        check(task, trained)
    for part, wanted in (("tune", True), ("final", False)):
        chosen = [task for task in tasks.values() if (name_of(task) in tune) == wanted]
        file = options.out / f"heldout-{part}.jsonl"
        write_suite(chosen, file)
        sys.stdout.write(table(file, chosen) + "\n")
    return 0


def name_of(task: SuiteTask) -> str:
    """The repository without a commit."""
    return split_name(task.solve_task.repo)[0]


def marked(task: SuiteTask) -> SuiteTask:
    """`meta.origin` says who made the bug: mined, procedural or model."""
    artifact = task.solve_task.artifact
    origin = artifact.meta.get("origin")
    if origin is None:
        origin = "procedural" if artifact.meta.get("operator") else "model"
    artifact = replace(artifact, meta={**artifact.meta, "origin": origin})
    return replace(task, solve_task=replace(task.solve_task, artifact=artifact))


def trained_projects(root: Path) -> dict[str, str]:
    """{project: where it is trained on}: what runs, warm starts and shipped adapters name."""
    found: dict[str, str] = {}
    for file in sorted((root / "conf" / "repos").glob("*.yaml")):
        for name in yaml.safe_load(file.read_text())["train"]:
            found[plain(name)] = str(file.relative_to(root))
    for file in sorted((root / "selfplay" / "data" / "adapters").glob("*/record.json")):
        for stage in json.loads(file.read_text())["stages"]:
            traced = stage.get("traces", {}).get("repos", ())
            for name in (*stage.get("repos", ()), *stage.get("sources", ()), *traced):
                found[plain(str(name).split(" ")[0])] = str(file.relative_to(root))
    return found


def plain(name: str) -> str:
    """A project's name as `projects_of` spells it."""
    return name.lower().replace("_", "-").replace(".", "-").removeprefix("python-")


def check(task: SuiteTask, trained: dict[str, str]) -> None:
    """Raises `UserError` for a bug that may not be in the suite."""
    spec = spec_from(name_of(task), task.environment)
    about = f"{task.solve_task.bug_id} of {task.solve_task.repo}"
    seen = sorted(projects_of(spec) & trained.keys())
    if seen:
        raise UserError(f"{about}: {trained[seen[0]]} learns from {seen[0]}")
    public = isinstance(spec.source, PypiSource) or (
        isinstance(spec.source, GitSource) and spec.source.url.startswith("https://")
    )
    if not public or not spec.license:
        raise UserError(f"{about}: its source is not public, or has no licence")


def table(file: Path, tasks: Sequence[SuiteTask]) -> str:
    """Bugs by repository and origin."""
    counts = Counter((name_of(t), t.solve_task.artifact.meta["origin"]) for t in tasks)
    licences = {name_of(t): t.environment["license"] for t in tasks}
    origins = ("procedural", "model", "mined")
    lines = [
        f"{file.name}: {len(tasks)} bugs, {file.stat().st_size / 1e6:.1f} MB",
        f"| repository | {' | '.join(origins)} | licence |",
        "|---|---|---|---|---|",
    ]
    for name in sorted(licences):
        numbers = " | ".join(str(counts[name, origin]) for origin in origins)
        lines.append(f"| {name} | {numbers} | {licences[name]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except SelfplayError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
