"""Tripwires: what usually ends a run in silence is said once, with what to do about it.

Each looks at the last steps (`window`). It speaks when its condition begins to hold and not again
until it has ceased; `curriculum/num_alarms` counts those that hold. What they remember is part of
the controller's state, so that a resumed run says nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfplay.config import AlarmsConfig
from selfplay.curriculum.step import StepResult

MIN_BUGS = 12
"""Bugs of a window below which no share of them means anything."""
Window = list[Mapping[str, float]]
"""Numbers of the last steps, the newest last."""


@dataclass(kw_only=True)
class Tripwires:
    """`entropy`: nats a token below which a solver has lost its variety; `learns`: whether a run
    that gives the learner nothing is in trouble."""

    config: AlarmsConfig
    entropy: float
    learns: bool
    window: Window = field(default_factory=list)
    tripped: set[str] = field(default_factory=set)

    def check(self, step: int, row: Mapping[str, float], result: StepResult) -> list[str]:
        """What is new to say of a step, one line each."""
        self.window.append({**row, **_places(result)})
        del self.window[: -self.config.window]
        found = {
            name: text
            for name, look in _LOOKS.items()
            if (self.learns or name not in _OF_LEARNING) and (text := look(self))
        }
        new = [f"step {step}: {text}" for name, text in found.items() if name not in self.tripped]
        self.tripped = set(found)
        return new

    def to_json(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"window": list(map(dict, self.window)), "tripped": sorted(self.tripped)}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on from `to_json`."""
        self.window, self.tripped = list(data["window"]), set(data["tripped"])

    @property
    def is_full(self) -> bool:
        """Whether the window is: fewer steps prove nothing."""
        return len(self.window) >= self.config.window

    def total(self, name: str) -> float:
        """Of a number over the window."""
        return sum(row.get(name, 0.0) for row in self.window)


def _places(result: StepResult) -> Counter[str]:
    """How many valid bugs each file and each strategy gave."""
    found: Counter[str] = Counter()
    for injection in result.injections:
        if injection.bug_id is not None:
            task = injection.task
            found[f"strategy {task.strategy}"] += 1
            found[f"file {task.repo}/{task.target.path}"] += 1
    for injection in result.injections:  # what could have given some
        found[f"strategy {injection.task.strategy}"] += 0
        found[f"file {injection.task.repo}/{injection.task.target.path}"] += 0
    return found


def _no_signal(wires: Tripwires) -> str:
    if not wires.is_full or wires.total("learner/groups_trained"):
        return ""
    solved = wires.total("solver/num_resolved")
    injects = wires.total("injector/num_injections")
    invalid = injects and not wires.total("injector/num_valid")
    why = "no bug was valid" if invalid else "no bug was solved"
    if solved:
        few = solved < wires.total("solver/num_attempts")
        why = "each bug was solved always or never" if few else "every bug was always solved"
    return (
        f"nothing to learn for {len(wires.window)} steps: {why}; see the reasons in metrics.jsonl, "
        "try curriculum.max_fresh_groups, a larger group_size, or a better start (policy.adapter)"
    )


def _valid(wires: Tripwires) -> str:
    asked, valid = wires.total("injector/num_injections"), wires.total("injector/num_valid")
    if not wires.is_full or not asked or valid / asked >= wires.config.valid:
        return ""
    reason, number = _most(wires, "injector/reason/")
    return (
        f"{valid:.0f} of {asked:.0f} injections were valid in {len(wires.window)} steps; the most "
        f"frequent reason is {reason} ({number:.0f}): see docs/validation.md"
    )


def _duplicates(wires: Tripwires) -> str:
    again, new = wires.total("injector/reason/duplicate"), wires.total("curriculum/num_new_bugs")
    limit = wires.config.duplicates
    if not limit or again + new < MIN_BUGS or again / (again + new) <= limit:
        return ""
    return (
        f"{again:.0f} of {again + new:.0f} valid bugs were known already; add repositories "
        "(repos.train), or set curriculum.sampler=least_covered"
    )


def _takeover(wires: Tripwires) -> str:
    limit = wires.config.takeover
    for kind, remedy in (
        ("strategy ", "lower its weight in injector.strategies"),
        ("file ", "set curriculum.max_bugs_per_file"),
    ):
        counts = Counter[str]()
        for row in wires.window:
            counts.update({n: int(v) for n, v in row.items() if n.startswith(kind)})
        total = counts.total()
        if not limit or len(counts) < 2 or total < MIN_BUGS:
            continue
        name, number = counts.most_common(1)[0]
        if number / total > limit:
            return f"{number} of the last {total} valid bugs are of {name}: {remedy}"
    return ""


def _gibberish(wires: Tripwires) -> str:
    noise = wires.total("learner/num_dropped_gibberish")
    noise += wires.total("learner/num_dropped_repetition")
    tokens, limit = wires.total("play/num_tokens"), wires.config.gibberish
    if not limit or not tokens or noise / tokens <= limit:
        return ""
    return (
        f"{noise:.0f} of {tokens:.0f} sampled tokens are noise or loops: the policy falls apart; "
        "resume from an earlier checkpoint with a lower learner.learning_rate"
    )


def _entropy(wires: Tripwires) -> str:
    entropy = wires.window[-1].get("solver/entropy")
    if entropy is None or entropy >= wires.entropy:
        return ""
    return (
        f"the solver's entropy is {entropy:.2f} nats a token, below "
        f"curriculum.entropy_alarm={wires.entropy:g}: variety is lost, and pass@8 with it; lower "
        "learner.learning_rate, or set learner.anchor or learner.entropy_coefficient"
    )


def _errors(wires: Tripwires) -> str:
    errored, limit = wires.total("play/num_errored"), wires.config.errors
    played = wires.total("injector/num_injections") + wires.total("solver/num_attempts")
    if not limit or not played or errored / played <= limit:
        return ""
    reason, _ = _most(wires, ("injector/reason/infra", "solver/reason/infra"))
    return (
        f"{errored:.0f} of {played:.0f} episodes ended by faults of the machine ({reason}): see "
        "their reasons in episodes.jsonl, and `selfplay doctor`"
    )


def _most(wires: Tripwires, start: str | tuple[str, ...]) -> tuple[str, float]:
    """The most frequent reason; a valid or resolved one is none."""
    counts = Counter[str]()
    names: Iterable[str] = {n for row in wires.window for n in row if n.startswith(start)}
    for name in names:
        reason = name.rpartition("/")[2]
        if reason not in ("valid", "resolved", "not_validated"):
            counts[reason] += int(wires.total(name))
    return counts.most_common(1)[0] if counts else ("none", 0)


_LOOKS: Mapping[str, Callable[[Tripwires], str]] = {
    "no_signal": _no_signal,
    "valid": _valid,
    "duplicates": _duplicates,
    "takeover": _takeover,
    "gibberish": _gibberish,
    "entropy": _entropy,
    "errors": _errors,
}
_OF_LEARNING = ("no_signal", "gibberish", "entropy")
