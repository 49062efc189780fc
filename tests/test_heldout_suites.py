"""The shipped suites hold what they say, and nothing that anything shipped has learned from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from selfplay.corpus.suite import read_suite
from selfplay.errors import UserError
from selfplay.repo.spec import load_spec, projects_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from heldout_suite import check, marked, name_of, trained_projects

ROOT = Path(__file__).resolve().parents[1]
SUITES = sorted((ROOT / "repos" / "suites").glob("*.jsonl"))
TRAINED = trained_projects(ROOT)


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_no_bug_is_of_a_project_that_anything_learned_from(file: Path) -> None:
    for task in read_suite(file):
        check(task, TRAINED)
        assert load_spec(name_of(task), ROOT / "repos").license == task.environment["license"]


def test_a_trained_project_is_refused_under_whatever_name() -> None:
    (task, *_) = read_suite(ROOT / "repos" / "suites" / "heldout.jsonl")
    check(task, TRAINED)
    with pytest.raises(UserError, match="learns from"):
        check(task, TRAINED | {next(iter(projects_of(load_spec("boltons", ROOT / "repos")))): "x"})
    assert {"cachetools", "slugify", "funcy", "more-itertools", "rich"} <= TRAINED.keys()


def test_what_a_stage_learned_from_traces_counts(tmp_path: Path) -> None:
    (tmp_path / "conf" / "repos").mkdir(parents=True)
    record = tmp_path / "selfplay" / "data" / "adapters" / "new" / "record.json"
    record.parent.mkdir(parents=True)
    stages = [{"repos": ["toolz"], "traces": {"repos": ["python-slugify", "parse"]}}]
    record.write_text(json.dumps({"stages": stages}))
    assert trained_projects(tmp_path).keys() == {"toolz", "slugify", "parse"}


def test_the_two_parts_share_neither_bug_nor_project() -> None:
    parts = {name: read_suite(ROOT / "repos" / "suites" / f"heldout-{name}.jsonl")
             for name in ("tune", "final")}  # fmt: skip
    projects = {
        name: {p for task in tasks for p in projects_of(load_spec(name_of(task), ROOT / "repos"))}
        for name, tasks in parts.items()
    }
    assert not projects["tune"] & projects["final"]
    ids = [task.solve_task.bug_id for tasks in parts.values() for task in tasks]
    assert len(ids) == len(set(ids))
    origins = {marked(task).solve_task.artifact.meta["origin"] for task in parts["final"]}
    assert {"procedural", "mined"} <= origins
