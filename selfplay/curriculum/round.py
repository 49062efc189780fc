"""Rounds: one injection each, and the solver group on its bug; then rewards and episodes.

All rounds of a step run phase by phase, so that each phase is one batch for the policy and one for
the sandboxes. A valid bug found twice in a step is solved once and both finders get its reward; a
bug that an earlier step found is a duplicate and counts as invalid (variety: docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selfplay.curriculum.contexts import RolloutContext
from selfplay.curriculum.injecting import Injection, inject
from selfplay.curriculum.sampler import PlannedInjection
from selfplay.curriculum.solving import Attempt, solve, solve_rate
from selfplay.roles.rewards import InjectorReward, SolverReward
from selfplay.types import Episode, PeerGroup, SolveTask

Report = Callable[[str], None]
"""Called with the name of the phase that begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Everything that the rounds of one step produced. `num_first_*`: of the attempts, those on
    bugs of this very step, which no weights have been trained on."""

    episodes: tuple[Episode, ...]
    groups: tuple[PeerGroup, ...]
    solve_rates: Mapping[str, float]
    num_valid: int
    num_injections: int
    num_resolved: int
    num_attempts: int
    num_first_resolved: int
    num_first_attempts: int
    num_overfit: int
    num_errored: int
    num_new_bugs: int
    num_grown: int


class RoundPlayer:
    """Plays the rounds of one step on a context.

    keep_bug      stores a valid bug at once; False when an earlier step already had it
    keep_attempts stores the attempts on one bug at once
    grow          makes higher-order bugs from the groups of a step; their number
    """

    def __init__(
        self,
        context: RolloutContext,
        *,
        injector_reward: InjectorReward,
        solver_reward: SolverReward,
        samples_per_seed: int,
        group_size: int,
        role_weights: Mapping[str, float],
        keep_bug: Callable[[Injection, int], bool],
        keep_attempts: Callable[[Sequence[Attempt], int], None],
        grow: Callable[[Sequence[Sequence[Attempt]], int], int],
    ) -> None:
        self._stage = context
        self._injector_reward = injector_reward
        self._solver_reward = solver_reward
        self._samples_per_seed = samples_per_seed
        self._group_size = group_size
        self._role_weights = role_weights
        self._keep_bug = keep_bug
        self._keep_attempts = keep_attempts
        self._grow = grow

    def play(
        self,
        step: int,
        planned: Sequence[PlannedInjection],
        draw_replays: Callable[[int], Sequence[SolveTask]],
        report: Report,
    ) -> Rounds:
        """Inject, validate, solve, grade, reward. `draw_replays(n)` gives n bugs of earlier steps
        to solve beside the `n` new ones."""
        report("inject")
        injections = inject(self._stage, [p.task for p in planned], self._samples_per_seed)
        fresh: dict[str, SolveTask] = {}
        duplicates: set[str] = set()
        for injection in injections:
            task = injection.outcome.solve_task
            if task is None or task.bug_id in fresh or task.bug_id in duplicates:
                continue
            if self._keep_bug(injection, step):
                fresh[task.bug_id] = task
            else:
                duplicates.add(task.bug_id)
        tasks = [*fresh.values(), *draw_replays(len(fresh))]
        report("solve")
        attempts = solve(self._stage, tasks, self._group_size, salt=step) if tasks else []
        for group in attempts:
            self._keep_attempts(group, step)
        num_grown = self._grow(attempts, step)
        rates = {
            task.bug_id: rate
            for task, group in zip(tasks, attempts, strict=True)
            if (rate := solve_rate(group)) is not None
        }
        group_of = {p.task.task_id: p.group_id for p in planned}
        episodes = [
            self._injector_episode(step, i, injection, group_of, rates, duplicates)
            for i, injection in enumerate(injections)
        ]
        for group in attempts:
            episodes += [
                solver_episode(step, i, attempt, self._solver_reward)
                for i, attempt in enumerate(group)
            ]
        valid = [i for i in injections if i.outcome.solve_task is not None]
        judged = [a for group in attempts for a in group]
        first = [a for group in attempts[: len(fresh)] for a in group]
        return Rounds(
            episodes=tuple(episodes),
            groups=peer_groups(episodes, self._role_weights),
            solve_rates=rates,
            num_valid=len(valid),
            num_injections=len(injections),
            num_resolved=sum(a.outcome.resolved for a in judged),
            num_attempts=len(judged),
            num_first_resolved=sum(a.outcome.resolved for a in first),
            num_first_attempts=len(first),
            num_overfit=sum(a.outcome.overfit for a in judged),
            num_errored=sum(e.status == "errored" for e in episodes),
            num_new_bugs=len(fresh),
            num_grown=num_grown,
        )

    def _injector_episode(
        self,
        step: int,
        index: int,
        injection: Injection,
        group_of: Mapping[str, str],
        rates: Mapping[str, float],
        duplicates: set[str],
    ) -> Episode:
        task, outcome = injection.task, injection.outcome
        status, reason = injection.status, outcome.reason
        bug_id = outcome.solve_task.bug_id if outcome.solve_task else None
        reward: float | None = None
        if bug_id is not None and bug_id in duplicates:
            reason, reward = "duplicate", self._injector_reward(False, None)
        elif status != "errored" and bug_id is None:
            reward = self._injector_reward(False, None)
        elif status != "errored" and bug_id is not None and bug_id in rates:
            reward = self._injector_reward(True, rates[bug_id])
        else:
            status = "errored"
        return Episode(
            episode_id=f"step{step}/injector/{index}",
            group_id=group_of[task.task_id],
            role="injector",
            repo=task.repo,
            task_id=task.task_id,
            bug_id=bug_id,
            status=status,
            reward=reward,
            reason=reason,
            trajectory=injection.rollout.trajectory,
            answer=injection.rollout.answer,
            policy_version=injection.rollout.policy_version,
            info={
                **injection.rollout.info,
                "step": step,
                "strategy": task.strategy,
                "path": task.seed.path,
                "function": task.seed.function,
                "solve_rate": rates.get(bug_id) if bug_id else None,
            },
        )


def solver_episode(step: int, index: int, attempt: Attempt, reward: SolverReward) -> Episode:
    """The record of one solver attempt, with its reward."""
    verdict = attempt.outcome
    bug_patch = attempt.task.artifact.bug_patch
    return Episode(
        episode_id=f"step{step}/solver/{attempt.task.bug_id}/{index}",
        group_id=f"step{step}/solver/{attempt.task.bug_id}",
        role="solver",
        repo=attempt.task.repo,
        task_id=attempt.task.bug_id,
        bug_id=attempt.task.bug_id,
        status=attempt.status,
        reward=None if verdict.errored else reward(verdict.resolved, verdict.patch, bug_patch),
        reason=verdict.reason,
        trajectory=attempt.rollout.trajectory,
        answer=attempt.rollout.answer,
        policy_version=attempt.rollout.policy_version,
        info={**attempt.rollout.info, "step": step, "patch": verdict.patch},
    )


def peer_groups(
    episodes: Sequence[Episode], role_weights: Mapping[str, float]
) -> tuple[PeerGroup, ...]:
    """Episodes by `group_id`, errored ones left out. A group never mixes roles."""
    members: dict[str, list[Episode]] = {}
    for episode in episodes:
        if episode.status != "errored" and episode.trajectory is not None:
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
