"""The corpus as a suite file with SWE-bench's field names, and the artifact directories."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from selfplay.bugs.artifact import write_artifact
from selfplay.corpus.corpus import Corpus
from selfplay.corpus.suite import SuiteTask, write_suite
from selfplay.errors import UserError
from selfplay.repo.spec import RepoSpec, load_spec

log = logging.getLogger(__name__)


def export_swebench(run: Path, out: Path, repos_dir: Path) -> int:
    """Write `out/suite.jsonl` and `out/artifacts/<bug id>/`; the number of bugs.

    The suite appears last and whole. A repository without a specification in `repos_dir` (one
    given by its path) is named alone; who reads the suite must know it.
    """
    with Corpus(run / "corpus.sqlite", read_only=True) as corpus:
        bugs = corpus.bugs()
    specs = {name: find_spec(name, repos_dir) for name in sorted({bug.task.repo for bug in bugs})}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for bug in bugs:
            write_artifact(bug.task.artifact, out / "artifacts" / bug.task.bug_id)
        tasks = [
            SuiteTask(
                solve_task=bug.task,
                base_commit=describe_source(spec) if spec else "",
                environment=environment_of(spec) if spec else {"repo": bug.task.repo},
            )
            for bug in bugs
            for spec in (specs[bug.task.repo],)
        ]
        write_suite(tasks, out / "suite.jsonl")
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    return len(bugs)


def find_spec(name: str, repos_dir: Path) -> RepoSpec | None:
    """The specification that a run used, None when `repos_dir` has none of that name."""
    if not (repos_dir / f"{name}.yaml").is_file():
        log.warning("%s: no specification in %s; the suite holds its name alone", name, repos_dir)
        return None
    return load_spec(name, repos_dir)


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
