"""The corpus as a suite file with SWE-bench's field names, and the artifact directories."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from selfplay.bugs.artifact import write_artifact
from selfplay.bugs.corpus import Corpus
from selfplay.bugs.suite import SuiteTask, write_suite
from selfplay.errors import UserError
from selfplay.repo.spec import RepoSpec, load_spec


def export_swebench(run: Path, out: Path, repos_dir: Path) -> int:
    """Write `out/suite.jsonl` and `out/artifacts/<bug id>/`; the number of bugs."""
    with Corpus(run / "corpus.sqlite", read_only=True) as corpus:
        bugs = corpus.bugs()
    specs = {bug.task.repo: load_spec(bug.task.repo, repos_dir) for bug in bugs}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for bug in bugs:
            write_artifact(bug.task.artifact, out / "artifacts" / bug.task.bug_id)
        tasks = [
            SuiteTask(
                solve_task=bug.task,
                base_commit=describe_source(specs[bug.task.repo]),
                environment=environment_of(specs[bug.task.repo]),
            )
            for bug in bugs
        ]
        write_suite(tasks, out / "suite.jsonl")
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    return len(bugs)


def environment_of(spec: RepoSpec) -> dict[str, Any]:
    """How the sandbox of a repository is made: enough to prepare it again elsewhere."""
    kind = type(spec.source).__name__.removesuffix("Source").lower()
    return {
        "repo": spec.name,
        "source": {kind: dataclasses.asdict(spec.source)},
        "install": list(spec.install),
        "license": spec.license,
    }


def describe_source(spec: RepoSpec) -> str:
    """A commit where there is one, else "project==version" or a path."""
    fields = dataclasses.asdict(spec.source)
    if "commit" in fields:
        return str(fields["commit"])
    if "version" in fields:
        return f"{fields['project']}=={fields['version']}"
    return str(next(iter(fields.values())))
