"""The corpus: duplicates, statistics, repeated steps, kills, two writers."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.patches.layers import make_patch
from selfplay.corpus.corpus import MAX_SAME_FAILURES, Corpus, difficulty
from selfplay.corpus.dedup import fingerprint, normal_line
from selfplay.errors import InfrastructureError, UserError
from selfplay.types import BugArtifact, FileChange, SolveTask, Target

SOURCE = """\
def first(x):
    # the head
    y = x + 1
    return y


class Box:
    def get(self, k):
        return self.d[k]


def second(x):
    return x * 2
"""
TARGET = Target(path="pkg/a.py", function="first")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "pkg").mkdir(parents=True)
    (tmp_path / "tree" / "pkg" / "a.py").write_text(SOURCE)
    return tmp_path / "tree"


def make_bug(tree: Path, old: str, new: str, *, fails: tuple[str, ...] = ("t::a",)) -> SolveTask:
    """A bug that replaces `old` by `new` in the source."""
    assert old in SOURCE
    change = FileChange(content=SOURCE.replace(old, new).encode())
    patch = make_patch(tree, {}, {"pkg/a.py": change})
    artifact = BugArtifact(
        test_script="pytest -v tests/test_a.py\n",
        test_files=("tests/test_a.py",),
        test_parser="print({})\n",
        bug_patch=patch,
        weakening_patch="",
        meta={"strategy": "direct"},
    )
    return SolveTask(
        bug_id=f"bug-{abs(hash((patch, fails))):x}",
        repo="toolz",
        artifact=artifact,
        fail_to_pass=fails,
        pass_to_pass=("t::z",),
        failure_output=b"E caf\xe9".decode("utf-8", "surrogateescape"),
    )


def add(corpus: Corpus, task: SolveTask, **changes: Any) -> bool:
    named = {"origin": "model", "strategy": "direct", "target": TARGET, "step": 0}
    return corpus.add_bug(task, **{**named, **changes})


def attempts(step: int, *resolved: bool | None) -> list[dict[str, Any]]:
    """Attempts of a step; None is an errored one."""
    return [
        {
            "episode_id": f"step{step}/solver/b/{i}",
            "resolved": bool(r),
            "errored": r is None,
            "reason": "",
            "patch": "diff \udce9",
        }
        for i, r in enumerate(resolved)
    ]


def test_a_bug_comes_back_as_it_was(tmp_path: Path, tree: Path) -> None:
    task = make_bug(tree, "x + 1", "x - 1")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert add(corpus, task, tree=tree, step=3)
        [bug] = corpus.bugs()
    assert bug.task == task
    assert (bug.origin, bug.strategy, bug.target, bug.step) == ("model", "direct", TARGET, 3)
    assert bug.functions == ("pkg/a.py::first",)
    assert (bug.parent, bug.solve_rate, bug.difficulty) == (None, None, "unattempted")
    with Corpus(tmp_path / "c.sqlite", read_only=True) as corpus:
        assert corpus.bug(task.bug_id) == bug
        assert corpus.bug("none") is None
        assert corpus.bugs("toolz") == [bug]
        assert corpus.bugs("other") == []


@pytest.mark.parametrize(
    ("old", "new", "with_tree", "without_tree"),
    [
        ("x + 1", "x  -  1", True, True),  # blanks
        ("x + 1", "x - 1  # why", True, True),  # a comment
        ("x + 1", "(x - 1)", True, False),  # parentheses mean nothing, but are tokens
        ("# the head\n    y = x + 1", "# another\n    y = x - 1", True, True),
        ("x + 1", "x * 1", False, False),
        ("x * 2", "x - 1", False, False),  # the same text elsewhere
    ],
)
def test_duplicates_up_to_layout(
    tmp_path: Path, tree: Path, old: str, new: str, with_tree: bool, without_tree: bool
) -> None:
    for source, duplicate in ((tree, with_tree), (None, without_tree)):
        with Corpus(tmp_path / f"{duplicate}{source is None}.sqlite") as corpus:
            assert add(corpus, make_bug(tree, "x + 1", "x - 1"), tree=source)
            assert add(corpus, make_bug(tree, old, new), tree=source, step=1) is not duplicate


def test_another_repository_is_no_duplicate(tmp_path: Path, tree: Path) -> None:
    task = make_bug(tree, "x + 1", "x - 1")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert add(corpus, task)
        assert add(corpus, dataclasses.replace(task, repo="other", bug_id="bug-2"))


def test_too_many_bugs_that_look_alike_to_a_solver(tmp_path: Path, tree: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        kept = [add(corpus, make_bug(tree, "x + 1", f"x + {i}"), tree=tree) for i in range(2, 9)]
        assert sum(kept) == MAX_SAME_FAILURES
        other = make_bug(tree, "x + 1", "x + 99", fails=("t::b",))
        assert add(corpus, other, tree=tree)


def test_a_repeated_step_finds_its_own_bug_again(tmp_path: Path, tree: Path) -> None:
    task = make_bug(tree, "x + 1", "x - 1")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert add(corpus, task, step=2)
        assert add(corpus, task, step=2)
        assert not add(corpus, task, step=3)
        assert add(corpus, task, step=1)
        assert [bug.step for bug in corpus.bugs()] == [1]
        assert corpus.num_bugs() == 1


def test_fingerprint_of_functions(tree: Path) -> None:
    both = make_bug(
        tree,
        "self.d[k]\n\n\ndef second(x):\n    return x * 2",
        "1\n\n\ndef second(x):\n    return x",
    )
    assert fingerprint(both, TARGET, tree).functions == ("pkg/a.py::Box.get", "pkg/a.py::second")
    outside = make_bug(tree, "class Box:", "class Box(dict):")
    assert fingerprint(outside, TARGET, tree).functions == ("pkg/a.py",)
    assert fingerprint(outside, TARGET).functions == ("pkg/a.py::first",)
    assert fingerprint(outside, TARGET).tree == ""


@given(line=st.text())
def test_normal_line_never_raises(line: str) -> None:
    normal_line(line)


def test_normal_line_by_value() -> None:
    assert normal_line("  x = f( 1,2 )  # why\n") == "x = f ( 1 , 2 )"
    assert normal_line("# nothing") == ""
    assert normal_line("if x:") == normal_line("if  x :") == "if x :"


def test_statistics(tmp_path: Path, tree: Path) -> None:
    tasks = [make_bug(tree, "x + 1", f"x + {i}") for i in (2, 3, 4)]
    other = dataclasses.replace(make_bug(tree, "x * 2", "x * 3"), repo="attrs")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        for step, task in enumerate(tasks):
            assert add(corpus, task, step=step, strategy="direct" if step else "removal")
        seed = Target(path="pkg/b.py", function="Box.get")
        assert add(corpus, other, target=seed, origin="procedural", step=5)
        corpus.add_attempts(tasks[0].bug_id, attempts(0, True, False, None, False), step=0)
        corpus.add_attempts(tasks[0].bug_id, attempts(3, True, True), step=3)
        corpus.add_attempts(tasks[1].bug_id, attempts(1, False, False), step=1)
        assert corpus.counts_by("repo") == {"toolz": 3, "attrs": 1}
        assert corpus.counts_by("strategy") == {"direct": 3, "removal": 1}
        assert corpus.counts_by("origin") == {"model": 3, "procedural": 1}
        assert corpus.counts_by("path") == {"pkg/a.py": 3, "pkg/b.py": 1}
        assert corpus.counts_by("function") == {"first": 3, "Box.get": 1}
        assert corpus.counts_by("difficulty") == {"unattempted": 2, "never": 1, "medium": 1}
        assert corpus.counts_by_function() == {
            "toolz": {"pkg/a.py::first": 3},
            "attrs": {"pkg/b.py::Box.get": 1},
        }
        assert corpus.counts_by_function(before_step=2) == {"toolz": {"pkg/a.py::first": 2}}
        assert corpus.solve_rates() == pytest.approx({tasks[0].bug_id: 0.6, tasks[1].bug_id: 0.0})
        before = corpus.solve_rates(before_step=3)
        assert before[tasks[0].bug_id] == pytest.approx(1 / 3)
        with pytest.raises(ValueError, match="colour"):
            corpus.counts_by("colour")


def test_lessons_are_of_the_first_group_of_earlier_bugs(tmp_path: Path, tree: Path) -> None:
    changes = ("x + 2", "x - 1", "x * 1", "x + 3", "1 + x")
    tasks = [make_bug(tree, "x + 1", new, fails=(f"t::{new}",)) for new in changes]
    kinds = ("name", "name", "name", None, "name")
    outcomes = [(True, False, None), (False, False), (True, True), (True, False), (True, False)]
    with Corpus(tmp_path / "c.sqlite") as corpus:
        for step, (task, kind, solved) in enumerate(zip(tasks, kinds, outcomes, strict=True)):
            artifact = dataclasses.replace(task.artifact, meta={"hint": kind})
            assert add(corpus, dataclasses.replace(task, artifact=artifact), step=step)
            named = [{**a, "episode_id": f"{step}/{a['episode_id']}"} for a in attempts(0, *solved)]
            corpus.add_attempts(task.bug_id, named, step=step)
        again = [{**a, "episode_id": f"9/{a['episode_id']}"} for a in attempts(3, True, False)]
        corpus.add_attempts(tasks[1].bug_id, again, step=3)  # a replay says nothing of its kind
        assert corpus.lessons(before_step=4) == {("direct", "name"): (1, 2)}
        assert corpus.lessons(before_step=0) == {}
        assert corpus.worth_by_function(before_step=4) == {}, "nothing was screened"


def test_a_screened_bug_counts_by_its_chance_of_both_outcomes(tmp_path: Path, tree: Path) -> None:
    """Two attempts at 0.5: one half. Both outcomes seen count 1, whatever was to be expected."""
    tasks = [make_bug(tree, "x + 1", f"x + {n}", fails=(f"t::{n}",)) for n in (2, 3, 4)]
    with Corpus(tmp_path / "c.sqlite") as corpus:
        for task in tasks:
            artifact = dataclasses.replace(task.artifact, meta={"hint": "name"})
            assert add(corpus, dataclasses.replace(task, artifact=artifact), step=0)
        corpus.add_probabilities({tasks[0].bug_id: 0.5, tasks[1].bug_id: 0.0}, step=0)
        corpus.add_probabilities({tasks[0].bug_id: 0.9}, step=1)  # the first one counts
        known = {"before_step": 1, "group_size": 2}
        assert corpus.lessons(**known) == {("direct", "name"): (0.5, 1.5)}
        assert corpus.worth_by_function(**known) == {"toolz": {"pkg/a.py::first": (0.5, 1.5)}}
        corpus.add_attempts(tasks[1].bug_id, attempts(0, True, False), step=0)
        assert corpus.lessons(**known) == {("direct", "name"): (1.5, 0.5)}


def test_a_file_of_an_earlier_release_gets_the_later_tables(tmp_path: Path, tree: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        task = make_bug(tree, "x + 1", "x + 2")
        assert add(corpus, task, step=0)
    with sqlite3.connect(tmp_path / "c.sqlite") as connection:
        connection.execute("DROP TABLE probabilities")
    connection.close()
    with Corpus(tmp_path / "c.sqlite") as corpus:
        corpus.add_probabilities({task.bug_id: 0.5}, step=0)
        assert corpus.lessons(before_step=1) == {}, "nothing was asked for by kind"


def test_a_bug_is_replayed_a_few_times_and_no_more(tmp_path: Path, tree: Path) -> None:
    task = make_bug(tree, "x + 1", "x + 2")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert add(corpus, task, step=0)
        for step in range(3):
            rows = [
                {**a, "episode_id": f"{step}/{a['episode_id']}"} for a in attempts(0, True, False)
            ]
            corpus.add_attempts(task.bug_id, rows, step=step)
        asked = {"before_step": 3, "low": 0.1, "high": 0.9}
        assert corpus.replay_candidates(**asked) == [task]
        assert corpus.replay_candidates(**asked, max_replays=3) == [task]
        assert corpus.replay_candidates(**asked, max_replays=1) == []


@pytest.mark.parametrize(
    ("rate", "name"),
    [(None, "unattempted"), (0.0, "never"), (0.125, "hard"), (0.25, "hard"), (0.5, "medium"),
     (0.75, "medium"), (0.875, "easy"), (1.0, "always")],
)  # fmt: skip
def test_difficulty_classes(rate: float | None, name: str) -> None:
    assert difficulty(rate) == name


def test_replay_depends_on_earlier_steps_alone(tmp_path: Path, tree: Path) -> None:
    tasks = [make_bug(tree, "x + 1", f"x + {i}") for i in (2, 3, 4)]
    with Corpus(tmp_path / "c.sqlite") as corpus:
        for step, task in enumerate(tasks):
            assert add(corpus, task, step=step)
        corpus.add_attempts(tasks[0].bug_id, attempts(0, True, False), step=0)
        corpus.add_attempts(tasks[1].bug_id, attempts(1, True, False), step=1)
        corpus.add_attempts(tasks[0].bug_id, attempts(2, True, True), step=2)
        corpus.add_attempts(tasks[2].bug_id, attempts(9, True, False), step=9)

        def names(step: int, high: float = 0.7) -> list[str]:
            found = corpus.replay_candidates(before_step=step, low=0.05, high=high)
            return [task.bug_id for task in found]

        assert names(0) == []
        assert names(1) == [tasks[0].bug_id]
        assert set(names(2)) == {tasks[0].bug_id, tasks[1].bug_id}
        assert names(3) == [tasks[1].bug_id]  # the other one is solved too often by now
        assert names(3, high=0.8) == [tasks[1].bug_id, tasks[0].bug_id]  # least often first
        assert tasks[2].bug_id not in names(9, high=1.0)


def test_attempts_of_a_repeated_step_count_once(tmp_path: Path, tree: Path) -> None:
    task = make_bug(tree, "x + 1", "x - 1")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        add(corpus, task)
        corpus.add_attempts(task.bug_id, attempts(0, True, True, True), step=0)
        corpus.add_attempts(task.bug_id, attempts(0, False, None), step=0)
        assert corpus.attempts(task.bug_id) == [
            {**attempt, "step": 0} for attempt in attempts(0, False, None)
        ]
        assert corpus.solve_rates() == {task.bug_id: 0.0}


def test_attempts_on_an_unknown_bug_are_a_mistake(tmp_path: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        with pytest.raises(sqlite3.IntegrityError):
            corpus.add_attempts("bug-none", attempts(0, True), step=0)
        assert corpus.attempts("bug-none") == []


def test_ancestry(tmp_path: Path, tree: Path) -> None:
    parent, child = make_bug(tree, "x + 1", "x - 1"), make_bug(tree, "x + 1", "x - 2")
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert add(corpus, parent)
        named = {"parent": parent.bug_id, "parent_episode": "step0/solver/b/1"}
        assert add(corpus, child, step=1, **named)
        assert [bug.parent for bug in corpus.bugs()] == [None, parent.bug_id]


def test_run_cache_is_a_mapping(tmp_path: Path) -> None:
    with Corpus(tmp_path / "c.sqlite") as corpus:
        corpus.run_cache["k"] = '{"a": "passed"}'
        corpus.run_cache["k"] = "{}"
        assert corpus.run_cache.get("absent") is None
    with Corpus(tmp_path / "c.sqlite") as corpus:
        assert dict(corpus.run_cache) == {"k": "{}"}
        assert "k" in corpus.run_cache
        assert len(corpus.run_cache) == 1
        del corpus.run_cache["k"]
        with pytest.raises(KeyError):
            del corpus.run_cache["k"]


def test_one_writer_and_readers_beside_it(tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Corpus(path) as corpus:
        add(corpus, make_bug(tree, "x + 1", "x - 1"))
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()}"):
            Corpus(path)
        with Corpus(path, read_only=True) as reader:
            assert reader.num_bugs() == 1
            with pytest.raises(InfrastructureError, match="readonly"):
                add(reader, make_bug(tree, "x + 1", "x - 2"))
    Corpus(path).close()


def test_files_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.sqlite: no such file"):
        Corpus(tmp_path / "absent.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("something else, long enough to be read" * 50)
    for read_only in (False, True):
        with pytest.raises(UserError, match="not a database"):
            Corpus(tmp_path / "text.sqlite", read_only=read_only)
    with sqlite3.connect(tmp_path / "old.sqlite") as other:
        other.execute("CREATE TABLE bugs (id)")
    other.close()
    with pytest.raises(UserError, match="format 0, this version reads 1"):
        Corpus(tmp_path / "old.sqlite")
    with pytest.raises(UserError, match="cannot be opened"):
        Corpus(tmp_path / "absent" / "c.sqlite")


def test_nothing_that_was_reported_is_lost_to_a_kill(tmp_path: Path) -> None:
    program = (
        "import sys, itertools\nfrom pathlib import Path\n"
        "from selfplay.corpus.corpus import Corpus\n"
        "corpus = Corpus(Path(sys.argv[1]))\n"
        "for i in itertools.count():\n"
        "    corpus.run_cache[str(i)] = 'x' * 3000\n    print(i, flush=True)\n"
    )
    path = tmp_path / "c.sqlite"
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    reported = [child.stdout.readline() for _ in range(15)]
    child.send_signal(signal.SIGKILL)
    reported += [line for line in child.stdout.readlines() if line.endswith(b"\n")]
    child.wait()
    with Corpus(path) as corpus:
        keys = sorted(int(key) for key in corpus.run_cache)
        assert keys == list(range(len(keys)))
        assert len(keys) >= len(reported) >= 15


def test_untried_children_are_played_once(tmp_path: Path, tree: Path) -> None:
    parent, child = (
        make_bug(tree, "x + 1", "x - 1"),
        make_bug(tree, "x + 1", "x * 1", fails=("t::c",)),
    )
    with Corpus(tmp_path / "c.sqlite") as corpus:
        add(corpus, parent)
        add(corpus, child, step=1, parent=parent.bug_id, parent_episode="step0/solver/b/0")
        assert corpus.untried_children(before_step=1) == []
        assert corpus.untried_children(before_step=2) == [child]
        assert (corpus.num_bugs(), corpus.num_grown()) == (2, 1)
        assert corpus.counts_by("repo", planted=True) == {"toolz": 1}
        corpus.add_attempts(child.bug_id, attempts(2, False), step=2)
        assert corpus.untried_children(before_step=2) == [child]  # a repeated step sees the same
        assert corpus.untried_children(before_step=3) == []
        sets = corpus.failing_sets("toolz", before_step=2)
        assert sets == {frozenset(parent.fail_to_pass), frozenset({"t::c"})}
