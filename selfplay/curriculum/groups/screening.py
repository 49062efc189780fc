"""Which new bugs are played: those whose repair is neither hopeless nor certain.

The gold answer of a planted bug is known. One forward pass gives its probability under the
solver, for about a hundredth of what a group of attempts costs; it is a lower bound of the solve
rate, since a bug may have other repairs and an edit other spellings. Among bugs below `cap` those
with the highest probability are played; the others stay in the corpus, and what their injector
earns is told in docs/learner.md.

A bug costs far more to validate than to write. So the same question is asked before anything has
run, of a solver that sees the edited function alone (`Answer.undo`), and only edits that it is
likely to take back are validated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from selfplay.curriculum.compact import trajectory
from selfplay.curriculum.scaffold import Answer, RolloutContext
from selfplay.sampling import SampleRequest, ScoreRequest, ScoringPolicy
from selfplay.types import BugArtifact, Completion, InjectionTask, SolveTask, Trajectory

PER_FUNCTION = 3
"""Edits of one function that one step validates, at most."""


@runtime_checkable
class KnowsAnswers(Protocol):
    """A scaffold that can say how its solver would write the gold patch."""

    def gold_answer(self, task: SolveTask) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(ids of the solver's prompt, ids of the answer with the end of its turn); None where no
        answer to that prompt is the gold patch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """How new bugs are chosen: at most `max_groups` of them, with a probability of the gold answer
    in [floor, cap], among at most `max_validations` edits that are validated (None: all)."""

    max_groups: int
    floor: float
    cap: float
    max_validations: int | None = None


def gold_trajectories(
    context: RolloutContext, tasks: Sequence[SolveTask]
) -> dict[str, Trajectory | None]:
    """{bug id: its gold answer, as if the policy had sampled it}, None where the prompt does not
    let it be written; {} where policy or scaffold cannot tell. Raises `PolicyError`."""
    scaffold, policy = context.scaffold, context.policy
    if not tasks or not (isinstance(scaffold, KnowsAnswers) and isinstance(policy, ScoringPolicy)):
        return {}
    answers = context.pool.map(scaffold.gold_answer, tasks)
    known = [(task.bug_id, answer) for task, answer in zip(tasks, answers, strict=True) if answer]
    version = policy.version  # before they are scored: weights may be published meanwhile
    scores = _scored(context, policy, [answer for _, answer in known])
    found: dict[str, Trajectory | None] = dict.fromkeys(task.bug_id for task in tasks)
    for (bug_id, (prompt, ids)), logprobs in zip(known, scores, strict=True):
        found[bug_id] = trajectory(
            SampleRequest(prompt_ids=prompt, temperature=context.sampling.temperature),
            Completion(
                token_ids=ids,
                logprobs=logprobs,
                text="",
                finish_reason="stop",
                policy_version=version,
            ),
        )
    return found


def _scored(
    context: RolloutContext,
    policy: ScoringPolicy,
    answers: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
) -> list[tuple[float, ...]]:
    """Log-probabilities of (prompt, answer), at the temperature of the run."""
    temperature = context.sampling.temperature
    requests = [
        ScoreRequest(prompt_ids=prompt, answer_ids=ids, temperature=temperature)
        for prompt, ids in answers
    ]
    with context.clock.running():
        return policy.score(requests)


def probability(gold: Trajectory | None) -> float:
    """Of an answer that can be written; 0 for None."""
    return 0.0 if gold is None else math.exp(math.fsum(gold.logprobs))


def worth_validating(
    context: RolloutContext,
    tasks: Sequence[InjectionTask],
    answers: Sequence[Sequence[Answer[BugArtifact]]],
    rule: Screening,
) -> set[tuple[int, Hashable]] | None:
    """(number of the task, key of the answer) of what is validated; None: everything is.

    The `max_validations` edits that are likeliest to be taken back, below the cap, at most
    `PER_FUNCTION` in one function (equal edits count once); and answers that are no edit, which
    cost no run. Raises `PolicyError`.
    """
    policy = context.policy
    if rule.max_validations is None or not isinstance(policy, ScoringPolicy):
        return None
    distinct = {
        (number, answer.key): answer for number, group in enumerate(answers) for answer in group
    }
    if any(answer.undo is None for answer in distinct.values()):
        return None
    undone = context.pool.map(
        lambda answer: answer.undo() if answer.undo else None, distinct.values()
    )
    keys: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, Hashable]]] = {}
    found = set()
    for key, undo in zip(distinct, undone, strict=True):
        if undo is None:
            found.add(key)
        else:
            keys.setdefault(undo, []).append(key)
    scores = _scored(context, policy, keys)
    places: Counter[tuple[str, str, str]] = Counter()
    sums = map(math.fsum, scores)
    ranked = sorted(zip(sums, keys, strict=True), key=lambda pair: (-pair[0], pair[1]))
    likely = [same for score, same in ranked if math.exp(score) <= rule.cap]
    for same in likely:
        task = tasks[keys[same][0][0]]
        place = (task.repo, task.target.path, task.target.function)
        if places[place] < PER_FUNCTION and places.total() < rule.max_validations:
            places[place] += 1
            found.update(keys[same])
    return found


def chosen(
    tasks: Mapping[str, SolveTask], probabilities: Mapping[str, float], rule: Screening | None
) -> list[SolveTask]:
    """The bugs that are played, the most likely repair first; all in their order where there is no
    rule or nothing is known of them.

    Example: at most 2 below 0.7, of 0.9, 0.5, 0.01 and 0.2 the second and the last are played.
    """
    if rule is None or not probabilities:
        return list(tasks.values())
    fit = [name for name in tasks if rule.floor <= probabilities[name] <= rule.cap]
    order = sorted(fit, key=lambda name: (-probabilities[name], name))
    return [tasks[name] for name in order[: rule.max_groups]]
