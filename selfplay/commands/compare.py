"""`selfplay compare A B`: what changed between two evaluations of the same tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.bug_sources.commit_trees import split_name
from selfplay.commands.attempt_log import places
from selfplay.commands.output import print_json, print_table
from selfplay.config import CompareConfig
from selfplay.errors import UserError
from selfplay.statistics import Interval, mean_change, paired_difference, pass_at_k

CONFIG, SCHEMA = "compare", CompareConfig
POSITIONAL = ("a", "b")
HELP = """
keys: a=A b=B (or by their places: selfplay compare A B), json=true
A, B: what `evaluate out=FILE` wrote, or a run directory (its evaluation after training), or its
eval_before.json and eval_after.json.
Prints the mean change of pass@1, pass@k and p(gold) from A to B on the tasks that both judged, with
95 % bootstrap intervals over tasks (paired; over functions, where questions are about them; of
p(gold) also over repositories and their tasks), and every task whose resolved attempts changed.
"""
Row = Mapping[str, Any]
TRIES = 8
"""Answers of which one may be the gold one."""


def run(config: CompareConfig) -> int:
    """Compare; 0 when there was something to compare."""
    first, second = read_evaluation(Path(config.a)), read_evaluation(Path(config.b))
    document = compare(first, second)
    if not document["num_tasks"] and "p_gold" not in document:
        raise UserError(f"{config.a} and {config.b} have no judged task in common")
    if config.json:
        print_json(document)
    else:
        _print(config, document)
    return 0


def read_evaluation(path: Path) -> dict[str, Row]:
    """{instance_id: its row of `tasks`} of a finished evaluation. Raises `UserError`."""
    if path.is_dir():
        path = path / "eval_after.json"
    file, _ = places(str(path))
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if isinstance(document, dict) and document.get("finished") is False:
        raise UserError(f"{file}: the evaluation is not finished; the same command goes on with it")
    try:
        return {
            str(row["instance_id"]): {**row, "n": int(row["n"]), "resolved": int(row["resolved"])}
            for row in document["tasks"]
        }
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file}: no result of `selfplay evaluate` (it has no tasks)") from None


def compare(first: Mapping[str, Row], second: Mapping[str, Row]) -> dict[str, Any]:
    """The document that json=true prints (docs/formats.md)."""
    common = [name for name in first if name in second]
    judged = [name for name in common if first[name]["n"] and second[name]["n"]]
    a, b = ([(t[i]["n"], t[i]["resolved"]) for i in judged] for t in (first, second))
    most = min((n for n, _ in (*a, *b)), default=1)
    alike = [str(first[i].get("function", "")) for i in judged]
    clusters = alike if all(alike) else None
    changed = [_change(first[i], second[i]) for i in judged]
    changed = [row for row in changed if row["a"] * row["n_b"] != row["b"] * row["n_a"]]
    changed.sort(key=lambda row: row["b"] / row["n_b"] - row["a"] / row["n_a"])
    return {
        "num_tasks": len(judged),
        "not_judged": len(common) - len(judged),
        "missing_in_b": [name for name in first if name not in second],
        "missing_in_a": [name for name in second if name not in first],
        **{f"pass@{k}": _difference(a, b, k, clusters) for k in sorted({1, most}) if judged},
        **gold_difference(list(first.values()), list(second.values())),
        "resolved_only_in_a": [row["instance_id"] for row in changed if not row["b"]],
        "resolved_only_in_b": [row["instance_id"] for row in changed if not row["a"]],
        "changed": changed,
    }


def _change(a: Row, b: Row) -> dict[str, Any]:
    return {
        "instance_id": str(a["instance_id"]),
        "repo": str(a.get("repo", "")),
        "a": a["resolved"],
        "n_a": a["n"],
        "b": b["resolved"],
        "n_b": b["n"],
    }


def _difference(
    a: Sequence[tuple[int, int]],
    b: Sequence[tuple[int, int]],
    k: int,
    clusters: Sequence[str] | None,
) -> dict[str, Any]:
    means = [sum(pass_at_k(*pair, k) for pair in pairs) / max(1, len(pairs)) for pairs in (a, b)]
    change = paired_difference(a, b, k=k, clusters=clusters)
    return {"a": means[0], "b": means[1], "difference": change.to_json()}


def gold_difference(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """Of p(gold), and of 1 - (1 - p)^8, the chance that one of eight answers is the gold one, over
    the tasks for which both know it; {} without any."""
    old, new = (
        {row["instance_id"]: row for row in rows if "p_gold" in row} for rows in (first, second)
    )
    shared = [name for name in old if name in new]
    repos = [split_name(str(old[name].get("repo", "")))[0] for name in shared]
    found = {}
    for key, tries in (("p_gold", 1), (f"p_gold@{TRIES}", TRIES)):
        a, b = ([1 - (1 - rows[name]["p_gold"]) ** tries for name in shared] for rows in (old, new))
        if shared:
            found[key] = {
                "num_tasks": len(shared),
                "a": sum(a) / len(a),
                "b": sum(b) / len(b),
                "difference": mean_change(a, b).to_json(),
                "difference_by_repo": mean_change(a, b, clusters=repos).to_json(),
            }
    return found


def _print(config: CompareConfig, document: dict[str, Any]) -> None:
    rows = [
        (row["instance_id"], row["repo"], f"{row['a']}/{row['n_a']}", f"{row['b']}/{row['n_b']}",
         "only in A" if not row["b"] else "only in B" if not row["a"] else "")
        for row in document["changed"]
    ]  # fmt: skip
    if rows:
        print_table("what changed", ("task", "repo", "A", "B", "resolved"), rows)
    table = [
        _line(name, document[name], "difference", 1) for name in document if name[:5] == "pass@"
    ]
    number = document["num_tasks"]
    for name in (key for key in document if key.startswith("p_gold")):
        entry = document[name]
        number = max(number, entry["num_tasks"])
        table += [
            _line(name.replace("p_gold", "p(gold)"), entry, "difference", 2),
            _line("  over repositories", entry, "difference_by_repo", 2),
        ]
    title = f"A: {config.a}   B: {config.b}   {number} tasks"
    print_table(title, ("metric", "A", "B", "change, points", "95 % interval"), table)
    apart = {
        "judged in one alone": document["not_judged"],
        "not in B": len(document["missing_in_b"]),
        "not in A": len(document["missing_in_a"]),
    }
    if any(apart.values()):
        print_table("not compared", ("tasks", "number"), [(k, v) for k, v in apart.items() if v])


def _line(name: str, entry: Row, key: str, digits: int) -> tuple[str, ...]:
    """A row of the table of means and their change, in percent and points."""
    change = Interval(**entry[key])
    points = [f"{100 * value:+.{digits}f}" for value in (change.mean, change.low, change.high)]
    means = (f"{entry[side]:.{digits}%}" for side in ("a", "b"))
    return (name, *means, points[0], f"{points[1]} to {points[2]}")
