"""What a page holds: an index that is there from the start, and texts in pieces behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from selfplay.corpus.corpus import StoredBug
from selfplay.report import charts
from selfplay.report.runs import Line, RunRecord

T = TypeVar("T")
MAX_POINTS = 400
"""Points of a curve; of a longer run several steps are shown as their mean."""
PIECE = 40
"""Bugs, or injections, of one piece."""
MAX_TEXT = 4000
"""Characters of one text; of a longer one the middle is left out."""
_SHARES = (
    ("valid injections", "injector/num_valid", "injector/num_injections"),
    ("resolved attempts", "solver/num_resolved", "solver/num_attempts"),
)
_COUNTS = tuple(name for _, *names in _SHARES for name in names)


def index_of(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """What is there from the start: curves, and a line for each bug and injection."""
    rows = [{"run": run.name, **row} for run in runs for row in _thinned(run.metrics)]
    names = sorted({name for row in rows for name in row} - {"run", "step"})
    return {
        "runs": [run.name for run in runs],
        "rows": rows,
        "curves": charts.curves(names, len(runs)),
        "coverage": charts.coverage(len(runs)),
        "bugs": [line for run in runs for line in _bug_lines(run)],
        "injections": [_injection(run, line) for run in runs for line in run.injections()],
    }


def _bug_lines(run: RunRecord) -> Iterator[Line]:
    attempts = run.attempts()
    for bug in run.bugs:
        judged = [a for a in attempts.get(bug.task.bug_id, []) if a["status"] != "errored"]
        yield {
            "run": run.name,
            "id": bug.task.bug_id,
            "repo": bug.task.repo,
            "file": bug.target.path,
            "function": bug.target.function,
            "strategy": bug.strategy,
            "origin": bug.origin,
            "step": bug.step,
            "parent": bug.parent,
            "difficulty": bug.difficulty,
            "rate": bug.solve_rate,
            "attempts": len(judged),
            "tests": len(bug.task.fail_to_pass),
        }


def _injection(run: RunRecord, line: Line) -> Line:
    info = line.get("info") or {}
    return {
        "run": run.name,
        "id": line["episode_id"],
        "repo": line["repo"],
        "strategy": info.get("strategy", ""),
        "function": info.get("function", ""),
        "step": info.get("step"),
        "reward": line["reward"],
        "reason": line["reason"] or ("valid" if line["bug_id"] else line["status"]),
        "bug": line["bug_id"],
    }


def pieces_of(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """Texts behind the lines of the index, the newest first, `PIECE` of them at a time by id."""
    for run in runs:
        attempts = run.attempts()
        for bugs in _newest_first(run.bugs):
            yield {
                _key(run, bug.task.bug_id): _bug_text(bug, attempts.get(bug.task.bug_id, []))
                for bug in bugs
            }
    for run in runs:
        for lines in _newest_first(run.injections()):
            yield {_key(run, line["episode_id"]): _episode_text(line) for line in lines}


def _newest_first(items: Sequence[T]) -> Iterator[list[T]]:
    for end in range(len(items), 0, -PIECE):
        yield list(reversed(items[max(0, end - PIECE) : end]))


def _bug_text(bug: StoredBug, attempts: Sequence[Line]) -> dict[str, Any]:
    artifact = bug.task.artifact
    return {
        "patch": _cut(artifact.bug_patch),
        "weakening": _cut(artifact.weakening_patch),
        "script": _cut(artifact.test_script),
        "fail_to_pass": list(bug.task.fail_to_pass[:50]),
        "attempts": [_episode_text(line) for line in attempts],
    }


def _episode_text(line: Line) -> dict[str, Any]:
    info = line.get("info") or {}
    turns = [
        {key: _cut_all(turn[key]) for key in ("thought", "tool", "arguments", "observation")
         if turn.get(key)}
        for turn in info.get("turns", ())
    ]  # fmt: skip
    return {
        "id": line["episode_id"],
        "reward": line["reward"],
        "status": line["status"],
        "reason": line["reason"],
        "version": line["policy_version"],
        "answer": _cut(line["answer"]),
        **{key: _cut(str(info[key])) for key in ("user", "ending", "error") if info.get(key)},
        "turns": turns,
    }


def _thinned(rows: Sequence[Line]) -> list[Line]:
    """At most `MAX_POINTS` rows: neighbours as one, with the mean of what they all have."""
    width = -(-len(rows) // MAX_POINTS) if rows else 1
    if width == 1:
        return [dict(row) for row in rows]
    found = []
    for begin in range(0, len(rows), width):
        some = rows[begin : begin + width]
        names = set.intersection(*(set(row) for row in some))
        found.append({name: sum(row[name] for row in some) / len(some) for name in sorted(names)})
    return found


def cards_of(run: RunRecord) -> list[tuple[str, str]]:
    """The figures at the top: (what, value)."""
    cards = [("steps", str(len(run.metrics))), ("bugs", str(len(run.bugs)))]
    total = {n: sum(row.get(n, 0) for row in run.metrics) for n in _COUNTS}
    for label, above, below in _SHARES:
        if total[below]:
            cards.append((label, f"{total[above] / total[below]:.1%}"))
    summary = run.summary or {}
    before, after = summary.get("eval_before") or {}, summary.get("eval_after") or {}
    for name in after:
        if (name.startswith("pass@") or name == "p_gold") and name in before:
            cards.append((f"held-out {name}", f"{_rate(before[name])} → {_rate(after[name])}"))
    for name, key in (("pass@1", "pass@1_change"), ("p_gold", "p_gold_change")):
        if change := (summary.get("details") or {}).get(key):
            points = (f"{100 * change[end]:+.1f}" for end in ("mean", "low", "high"))
            cards.append((f"paired change of {name}, points", "{} [{}, {}]".format(*points)))
    if "wall_s" in summary:
        cards.append(("minutes", f"{summary['wall_s'] / 60:.1f}"))
    return cards


def _rate(interval: dict[str, float]) -> str:
    return f"{interval['mean']:.1%}"


def _key(run: RunRecord, name: str) -> str:
    return f"{run.name}:{name}".replace(" ", "_")


def _cut_all(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut_all(item) for key, item in value.items()}
    return _cut(str(value))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"
