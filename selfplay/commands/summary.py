"""`summary.json` and the table that a person reads at the end of a run."""

from __future__ import annotations

from collections import Counter
from typing import Any

from selfplay.bug_sources.commit_trees import split_name
from selfplay.commands.compare import gold_difference
from selfplay.commands.output import print_table
from selfplay.config import TrainConfig
from selfplay.corpus.corpus import GIVEN, Corpus
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import current_names
from selfplay.statistics import paired_difference

VALID = ("injector/num_valid", "injector/num_injections")
SOLVED = ("solver/num_resolved", "solver/num_attempts")
FIRST = ("solver/num_first_resolved", "solver/num_first_attempts")
"""Attempts on bugs of their own step: replays are bugs that the solver was trained on."""


def summarise(
    config: TrainConfig, run_dir: RunDir, corpus: Corpus, *, wall_s: float
) -> dict[str, Any]:
    """Write and return `summary.json` (keys: docs/formats.md; the rest under `details`)."""
    rows = [current_names(row) for row in run_dir.read_metrics()]
    quarter = max(1, len(rows) // 4)
    before, after = run_dir.read_json("eval_before.json"), run_dir.read_json("eval_after.json")
    summary: dict[str, Any] = {
        "steps": len(rows),
        "solve_rate_first": _rate(rows[:quarter], *SOLVED),
        "solve_rate_last": _rate(rows[-quarter:], *SOLVED),
        "valid_rate_first": _rate(rows[:quarter], *VALID),
        "valid_rate_last": _rate(rows[-quarter:], *VALID),
        "eval_before": _head(before),
        "eval_after": _head(after),
        "num_valid_bugs": corpus.counts_by("origin", planted=True).get("model", 0),
        "wall_s": round(wall_s, 1),
        "details": {
            "bugs_by_repo": corpus.counts_by("repo", planted=True),
            "bugs_by_strategy": corpus.counts_by("strategy", planted=True),
            "task": config.task,
            "num_given_tasks": sum(corpus.counts_by("origin").get(o, 0) for o in GIVEN),
            "higher_order_bugs": corpus.num_grown(),
            "optimizer_steps": sum(row.get("learner/groups_trained", 0) > 0 for row in rows),
            "groups_with_variance": sum(row.get("learner/groups_trained", 0) for row in rows),
            "solver_groups_with_variance": _mean(rows, "solver/groups_with_variance"),
            "injector_groups_with_variance": _mean(rows, "injector/groups_with_variance"),
            "informative": informative_groups(rows),
            "seconds": seconds(rows),
            "entropy_first": _mean(rows[:quarter], "solver/entropy"),
            "entropy_last": _mean(rows[-quarter:], "solver/entropy"),
            "distinct_answers_first": _mean(rows[:quarter], "solver/distinct_answers"),
            "distinct_answers_last": _mean(rows[-quarter:], "solver/distinct_answers"),
            "reasons": {role: _reasons(rows, f"{role}/reason/") for role in ("injector", "solver")},
            "errored_episodes": sum(row.get("play/num_errored", 0) for row in rows),
            "pass@1_change": _change(before, after),
            "pass@1_change_by_repo": _change(before, after, by_repo=True),
            **_gold_change(before, after),
            "new_bug_solve_rate_first": _rate(rows[:quarter], *FIRST),
            "new_bug_solve_rate_last": _rate(rows[-quarter:], *FIRST),
            "seed": config.seed,
        },
    }
    run_dir.write_summary(summary)
    return summary


def informative_groups(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Solver groups of a run, those with both outcomes, and how many of these came in a minute of
    steps (evaluations left aside). Fresh: on bugs of the step itself."""
    minutes = sum(row.get("curriculum/step_s", 0.0) for row in rows) / 60.0
    found = {
        name: sum(row.get(f"solver/num_{name}", 0.0) for row in rows)
        for name in ("groups", "fresh_groups", "informative_groups", "informative_fresh_groups")
    }
    for name in ("informative_groups", "informative_fresh_groups"):
        found[f"{name}_per_min"] = found[name] / minutes if minutes else 0.0
    return found


def seconds(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Where the seconds of all steps went; rows of older versions do not say."""
    names = {
        "sampling": "play/sampling_s",
        "sandboxes": "play/sandbox_s",
        "learning": "learner/wall_s",
        "other": "play/other_s",
    }
    return {name: round(sum(row.get(key, 0.0) for row in rows), 1) for name, key in names.items()}


def _number(value: float | None) -> str:
    """ "-" where no step of the quarter has it: nothing was solved, or all of it was errored."""
    return "-" if value is None else f"{value:.2f}"


def _shares(seconds: dict[str, float]) -> str:
    """Example: "50%, 25%, 20%, 5%"."""
    whole = sum(seconds.values()) or 1.0
    return ", ".join(f"{value / whole:.0%}" for value in seconds.values())


def print_summary(summary: dict[str, Any], run_dir: RunDir) -> None:
    """What a person wants to know, in one table."""
    details = summary["details"]
    rows: list[tuple[str, object, object]] = [
        ("solve rate (first / last quarter)", _pc(summary["solve_rate_first"]),
         _pc(summary["solve_rate_last"])),
        ("the same, bugs of the step itself", _pc(details["new_bug_solve_rate_first"]),
         _pc(details["new_bug_solve_rate_last"])),
        ("valid rate (first / last quarter)", _pc(summary["valid_rate_first"]),
         _pc(summary["valid_rate_last"])),
    ]  # fmt: skip
    for name, key in (("entropy, nats a token", "entropy"),
                      ("distinct answers a group", "distinct_answers")):  # fmt: skip
        first, last = details[f"{key}_first"], details[f"{key}_last"]
        if first is not None or last is not None:
            rows.append((f"solver's {name}", _number(first), _number(last)))
    before, after = summary["eval_before"], summary["eval_after"]
    if before and after:
        for key in (k for k in before if k.startswith("pass@") or k == "p_gold"):
            name = "p(gold)" if key == "p_gold" else key
            rows.append((f"held-out {name}", _interval(before[key]), _interval(after[key])))
    for name, key in (("pass@1", "pass@1_change"), ("p(gold)", "p_gold_change")):
        if change := details.get(key):
            rows.append((f"held-out {name}, paired change", "", _interval(change)))
    bugs = ", ".join(f"{repo} {n}" for repo, n in details["bugs_by_repo"].items())
    rows += [
        ("valid bugs found by the model", "", f"{summary['num_valid_bugs']} ({bugs})"),
        ("informative solver groups", "", _informative(details["informative"], "")),
        ("the same, bugs of the step itself", "", _informative(details["informative"], "fresh_")),
        ("steps / optimizer steps", "", f"{summary['steps']} / {details['optimizer_steps']}"),
        ("wall time, minutes", "", f"{summary['wall_s'] / 60:.1f}"),
        ("of the steps: " + ", ".join(details["seconds"]), "", _shares(details["seconds"])),
        ("run directory", "", str(run_dir.path)),
    ]
    print_table(f"selfplay: {run_dir.path.name}", ("", "before", "after"), rows)


def _rate(rows: list[dict[str, Any]], above: str, below: str) -> float | None:
    total = sum(row.get(below, 0) for row in rows)
    return sum(row.get(above, 0) for row in rows) / total if total else None


def _reasons(rows: list[dict[str, Any]], prefix: str) -> dict[str, int]:
    """How many episodes ended with each reason, the most frequent first."""
    counts = Counter[str]()
    for row in rows:
        counts.update(
            {k.removeprefix(prefix): int(v) for k, v in row.items() if k.startswith(prefix)}
        )
    return dict(counts.most_common())


def _informative(found: dict[str, float], kind: str) -> str:
    number, total = found[f"informative_{kind}groups"], found[f"{kind}groups"]
    pace = found[f"informative_{kind}groups_per_min"]
    return f"{number:.0f} of {total:.0f}, {pace:.1f} a minute"


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if key in row]
    return sum(values) / len(values) if values else None


def _head(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {k: v for k, v in evaluation.items() if k not in ("tasks", "reasons")}


def _change(
    before: dict[str, Any] | None, after: dict[str, Any] | None, *, by_repo: bool = False
) -> dict[str, Any] | None:
    """Paired change of pass@1, tasks or whole repositories resampled."""
    if before is None or after is None:
        return None
    old = {t["instance_id"]: (t["n"], t["resolved"]) for t in before["tasks"]}
    new = {t["instance_id"]: (t["n"], t["resolved"]) for t in after["tasks"]}
    shared = [name for name in old if name in new and old[name][0] and new[name][0]]
    if not shared:
        return None
    repos = {t["instance_id"]: split_name(t["repo"])[0] for t in before["tasks"]}
    interval = paired_difference(
        [old[n] for n in shared],
        [new[n] for n in shared],
        clusters=[repos[n] for n in shared] if by_repo else None,
    )
    return interval.to_json()


def _gold_change(
    before: dict[str, Any] | None, after: dict[str, Any] | None
) -> dict[str, dict[str, float]]:
    """Paired change of p(gold), tasks and repositories resampled; {} where it is not known."""
    found = gold_difference((before or {}).get("tasks", ()), (after or {}).get("tasks", ()))
    names = {"p_gold_change": "difference", "p_gold_change_by_repo": "difference_by_repo"}
    return {name: found["p_gold"][key] for name, key in names.items() if found}


def _pc(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"
