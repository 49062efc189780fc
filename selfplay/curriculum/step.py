"""One round of self-play, to be read from top to bottom; a step of a run has one, or several.

Each phase is one batch for the policy and one for the sandboxes. A valid bug that is found twice
in a round is solved once and both finders get its reward; a bug that an earlier one found is a
duplicate and counts as invalid (variety: docs/architecture.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.corpus.corpus import Origin
from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.groups.growing import solve_in_parts
from selfplay.curriculum.groups.guidance import guided
from selfplay.curriculum.groups.measures import (
    group_measures,
    probability_measures,
    sampled_entropy,
)
from selfplay.curriculum.groups.screening import (
    Screening,
    chosen,
    gold_trajectories,
    probability,
)
from selfplay.curriculum.injecting import Injection, Unplayed, inject, injector_episode
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.curriculum.solving import Attempt, solve_rate, solver_episode
from selfplay.roles.rewards import InjectorReward, SolverReward, expected_reward
from selfplay.types import Episode, PeerGroup, SolveTask, Trajectory

Report = Callable[[str], None]
"""Called with the name of the phase that begins."""


@dataclass(frozen=True, kw_only=True)
class StepRules:
    """How much is sampled in a step, and what it earns.

    samples_per_task   injections of each task
    group_size         attempts on each bug
    role_weights       of the loss, by role
    first_attempts     of these, on each bug; the rest follow where they can matter; None: all
    screening          which new bugs are played; None: all
    pays_unplayed      a bug that was not played earns what its gold probability lets expect
    shows_gold         the gold answers of new bugs join their groups (`groups/guidance.py`)
    gold_counts        as one attempt, or as those that are expected
    """

    samples_per_task: int
    group_size: int
    injector_reward: InjectorReward
    solver_reward: SolverReward
    role_weights: Mapping[str, float]
    first_attempts: int | None = None
    screening: Screening | None = None
    pays_unplayed: bool = False
    shows_gold: bool = False
    gold_counts: str = "one"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """Everything that one round produced, or all of a step; the first `num_fresh` groups of
    `attempts` are on bugs of these very rounds, which no weights have been trained on.

    num_new         valid bugs of the step that no earlier one had
    given           {bug id: origin} of real bugs that were solved beside them
    probabilities   {bug id: probability of its gold answer} of these, where that was asked for
    """

    injections: tuple[Injection, ...]
    attempts: tuple[tuple[Attempt, ...], ...]
    episodes: tuple[Episode, ...]
    groups: tuple[PeerGroup, ...]
    num_new: int
    num_fresh: int
    num_grown: int
    probabilities: Mapping[str, float]
    given: Mapping[str, Origin] = field(default_factory=dict)


def play_step(
    step: int,
    curriculum: Curriculum,
    context: RolloutContext,
    rules: StepRules,
    report: Report,
    before: int | None = None,
) -> StepResult:
    """Inject, solve, reward: the round of number `step`, which knows the bugs of rounds below
    `before` (None: of all earlier ones). What is found is in the corpus when this returns; nothing
    is learned yet. Raises `PolicyError`."""
    report("inject")
    tasks = curriculum.draw(step, before)
    injections = inject(context, tasks, rules.samples_per_task, rules.screening)
    new, duplicates = curriculum.keep_bugs(injections, step)
    golds = _screened(context, new, rules, report)
    probabilities = {bug_id: probability(gold) for bug_id, gold in golds.items()}
    curriculum.keep_probabilities(probabilities, step)
    fresh = chosen(new, probabilities, rules.screening)
    bugs = [*fresh, *curriculum.replays(step, len(fresh), before)]
    human = curriculum.human_bugs(step, len(bugs), before)
    bugs += human

    report("solve")
    first = min(rules.first_attempts or rules.group_size, rules.group_size)
    sizes = (first, rules.group_size - first)
    attempts = solve_in_parts(context, bugs, sizes, probabilities, salt=step)
    curriculum.keep_attempts(attempts, step)
    num_grown = curriculum.grow(attempts, step, context.pool, before)

    rates = {group[0].task.bug_id: solve_rate(group) for group in attempts}
    episodes = [
        injector_episode(
            step,
            i,
            injection,
            solve_rate=rates.get(injection.bug_id or ""),
            is_duplicate=injection.bug_id in duplicates,
            reward=rules.injector_reward,
            unplayed=_unplayed(injection.bug_id, rates, probabilities, rules),
        )
        for i, injection in enumerate(injections)
    ]
    for group in attempts:
        for i, attempt in enumerate(group):
            part = "/later" if i >= first else ""
            episodes.append(solver_episode(step, i, attempt, rules.solver_reward, part))
    groups = peer_groups(episodes, rules.role_weights)
    return StepResult(
        injections=tuple(injections),
        attempts=tuple(map(tuple, attempts)),
        episodes=tuple(episodes),
        groups=guided(groups, step, golds, rules.gold_counts) if rules.shows_gold else groups,
        num_new=len(new),
        num_fresh=len(fresh),
        num_grown=num_grown,
        probabilities=probabilities,
        given={task.bug_id: curriculum.origin_of(task) for task in human},
    )


def _screened(
    context: RolloutContext, new: Mapping[str, SolveTask], rules: StepRules, report: Report
) -> Mapping[str, Trajectory | None]:
    """The gold answers of new bugs, where these are screened."""
    if rules.screening is None:
        return {}
    report("screen")
    return gold_trajectories(context, list(new.values()))


def of_one_step(results: Sequence[StepResult]) -> StepResult:
    """The rounds of a step as one."""
    fresh = [group for result in results for group in result.attempts[: result.num_fresh]]
    others = [group for result in results for group in result.attempts[result.num_fresh :]]
    return StepResult(
        injections=tuple(injection for result in results for injection in result.injections),
        attempts=(*fresh, *others),
        episodes=tuple(episode for result in results for episode in result.episodes),
        groups=tuple(group for result in results for group in result.groups),
        num_new=sum(result.num_new for result in results),
        num_fresh=len(fresh),
        num_grown=sum(result.num_grown for result in results),
        probabilities={b: p for result in results for b, p in result.probabilities.items()},
        given={bug: origin for result in results for bug, origin in result.given.items()},
    )


def _unplayed(
    bug_id: str | None,
    rates: Mapping[str, float | None],
    probabilities: Mapping[str, float],
    rules: StepRules,
) -> Unplayed | None:
    """What is known of a valid bug that was screened out; None for any other."""
    if bug_id is None or bug_id in rates or bug_id not in probabilities:
        return None
    probability = probabilities[bug_id]
    paid = None
    if rules.pays_unplayed:
        paid = expected_reward(probability, rules.group_size, rules.injector_reward)
    return Unplayed(probability=probability, paid=paid)


def peer_groups(
    episodes: Iterable[Episode], role_weights: Mapping[str, float]
) -> tuple[PeerGroup, ...]:
    """Episodes by `group_id`; errored ones, and bugs that were not played, are left out. A group
    never mixes roles."""
    members: dict[str, list[Episode]] = {}
    for episode in episodes:
        if episode.reward is not None and episode.trajectory is not None:
            members.setdefault(episode.group_id, []).append(episode)
    groups = []
    for group_id, group in members.items():
        roles = {episode.role for episode in group}
        assert len(roles) == 1, f"group {group_id} mixes roles"
        groups.append(
            PeerGroup(
                group_id=group_id,
                trajectories=tuple(e.trajectory for e in group if e.trajectory is not None),
                rewards=tuple(float(e.reward) for e in group if e.reward is not None),
                weight=role_weights.get(group[0].role, 1.0),
                role=group[0].role,
            )
        )
    return tuple(groups)


def _code(reason: str) -> str:
    """A reason without its prose; a resolved attempt has none."""
    return reason.partition(":")[0] or "resolved"


def step_metrics(result: StepResult) -> dict[str, float]:
    """Counts, rates and mean reward by role of one step (docs/learner.md)."""
    attempts = [a for group in result.attempts for a in group]
    first = [a for group in result.attempts[: result.num_fresh] for a in group]
    num_valid = sum(i.bug_id is not None for i in result.injections)
    num_judged = sum(not i.outcome.is_left_out for i in result.injections)
    num_resolved = _num_resolved(attempts)
    num_overfit = sum(a.outcome.overfit for a in attempts)
    sampled = [e.trajectory for e in result.episodes if e.trajectory is not None]
    row: dict[str, float] = {
        "play/num_tokens": sum(trajectory.num_sampled for trajectory in sampled),
        "play/num_errored": sum(e.status == "errored" for e in result.episodes),
        "curriculum/num_new_bugs": result.num_new,
        "curriculum/num_higher_order": result.num_grown,
        "injector/num_injections": num_judged,
        "injector/num_valid": num_valid,
        "injector/valid_rate": num_valid / max(1, num_judged),
        "solver/num_attempts": len(attempts),
        "solver/num_resolved": num_resolved,
        "solver/solve_rate": num_resolved / max(1, len(attempts)),
        "solver/num_first_attempts": len(first),
        "solver/num_first_resolved": _num_resolved(first),
        "solver/overfit_rate": num_overfit / max(1, len(attempts)),
    }
    row |= Counter(f"{e.role}/reason/{_code(e.reason)}" for e in result.episodes)
    for role in ("injector", "solver"):
        rewards = [e.reward for e in result.episodes if e.role == role and e.reward is not None]
        if rewards:
            row[f"{role}/reward"] = sum(rewards) / len(rewards)
        groups = [g for g in result.groups if g.role == role]
        varied = sum(len(set(g.rewards)) > 1 for g in groups)
        row[f"{role}/groups_with_variance"] = varied / max(1, len(groups))
        entropy = sampled_entropy(
            e.trajectory for e in result.episodes if e.role == role and e.trajectory is not None
        )
        if entropy is not None:
            row[f"{role}/entropy"] = entropy
    shares = [a.outcome.share for a in attempts if a.outcome.share is not None]
    if shares:
        row["solver/test_share"] = sum(shares) / len(shares)
    row |= group_measures(result.attempts, _earned(result), result.num_fresh)
    row |= probability_measures(result.probabilities)
    return {name: float(value) for name, value in row.items()}


def _earned(result: StepResult) -> list[list[float]]:
    """Rewards of the judged attempts on each bug, as its groups are in order."""
    found: dict[str, list[float]] = {}
    for episode in result.episodes:
        if episode.role == "solver" and episode.reward is not None and episode.bug_id:
            found.setdefault(episode.bug_id, []).append(episode.reward)
    return [found.get(group[0].task.bug_id, []) if group else [] for group in result.attempts]


def _num_resolved(attempts: Sequence[Attempt]) -> int:
    return sum(attempt.outcome.resolved for attempt in attempts)
