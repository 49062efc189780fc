"""The pieces of a run, opened from its configuration and restored from its directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from selfplay.commands.compose import make_rollout_context, make_task_sampler, open_policy
from selfplay.commands.output import say
from selfplay.config import LearnerConfig, TrainConfig
from selfplay.corpus.corpus import Corpus
from selfplay.curriculum.controller import Controller, Watcher
from selfplay.curriculum.curriculum import Curriculum
from selfplay.curriculum.groups.screening import KnowsAnswers, Screening
from selfplay.curriculum.rounds.ledger import Round
from selfplay.curriculum.rounds.tripwires import Tripwires
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.step import Report, StepResult, StepRules, play_step
from selfplay.errors import UserError
from selfplay.learning import Learner, Restored
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.rewards import make_injector_reward, make_solver_reward
from selfplay.run_dir import RunDir
from selfplay.run_dir.metrics import MetricsLog
from selfplay.sampling import ScoringPolicy
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import SolveTask


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The pieces of a run, once everything could be opened; `trained` names its repositories."""

    context: RolloutContext
    learner: Learner | None
    first_step: int
    restored: Restored | None
    trained: tuple[str, ...]

    def close(self) -> None:
        """Inference servers of ours end, others forget what this run gave them."""
        close = getattr(self.context.policy, "close", None)
        if close is not None:
            close()


def open_run(
    config: TrainConfig,
    run_dir: RunDir,
    repos: dict[str, PreparedRepo],
    trained: tuple[str, ...],
    pool: SandboxPool,
    open_learner: Callable[[RunDir], Learner],
) -> Opened:
    """Policy, learner and context, restored from the newest whole checkpoint."""
    learner: Learner | None = None
    if config.learner.enabled:
        learner = open_learner(run_dir)
        policy, restored = learner.policy, learner.restore(run_dir)
        first_step = restored.step + 1 if restored else 0
    else:
        policy, restored = open_policy(config.policy, config.scaffold), None
        first_step = run_dir.next_step()
    if first_step:
        say(f"resuming {run_dir.path} at step {first_step}")
    sampling = Sampling(
        temperature=config.policy.temperature,
        top_p=config.policy.top_p,
        max_new_tokens=config.policy.max_new_tokens,
        seed=config.seed,
    )
    context = make_rollout_context(policy, repos, pool, config.scaffold, sampling)
    context = replace(context, early_grading=config.sandbox.early_grading)
    return Opened(
        context=context, learner=learner, first_step=first_step, restored=restored, trained=trained
    )


def open_metrics(config: TrainConfig, run_dir: RunDir, opened: Opened) -> MetricsLog:
    """The log, with the row of the step that the run goes on from."""
    metrics = MetricsLog(run_dir, config.metrics)
    metrics.truncate_after(opened.first_step - 1)
    if opened.restored:
        metrics.ensure(opened.first_step - 1, opened.restored.metrics)
    return metrics


def make_controller(
    config: TrainConfig,
    run_dir: RunDir,
    corpus: Corpus,
    opened: Opened,
    metrics: MetricsLog,
    watcher: Watcher,
    human: tuple[SolveTask, ...] = (),
) -> Controller:
    """Curriculum and controller over the training repositories."""
    context, shape = opened.context, config.curriculum
    sampler = make_task_sampler(config, context, opened.trained)
    curriculum = Curriculum(
        corpus=corpus,
        folder=run_dir.path,
        sampler=sampler if config.task == "selfplay" else None,
        repo_contexts=context.repo_contexts,
        shape=shape,
        human=human,
    )
    rules = StepRules(
        samples_per_task=shape.samples_per_seed,
        group_size=shape.group_size,
        first_attempts=shape.first_attempts,
        injector_reward=make_injector_reward(config.reward),
        solver_reward=make_solver_reward(config.reward),
        role_weights=_role_weights(config.learner),
        screening=screening_of(config, context),
        pays_unplayed=config.reward.unplayed == "expected",
        shows_gold=shape.show_gold,
        gold_counts=shape.gold_counts,
    )

    def play(round_: Round, context: RolloutContext, report: Report) -> StepResult:
        return play_step(round_.number, curriculum, context, rules, report, round_.before)

    return Controller(
        run_dir=run_dir,
        play=play,
        context=context,
        learner=opened.learner,
        metrics=metrics,
        watcher=watcher,
        max_idle_steps=shape.max_idle_steps,
        alarms=Tripwires(
            config=shape.alarms, entropy=shape.entropy_alarm, learns=opened.learner is not None
        ),
        rounds_per_step=shape.rounds_per_step,
        max_staleness=shape.max_staleness,
    )


def _role_weights(config: LearnerConfig) -> dict[str, float]:
    """Weights in the loss, by role."""
    return {"injector": config.injector_weight, "solver": config.solver_weight}


def screening_of(config: TrainConfig, context: RolloutContext) -> Screening | None:
    """Which new bugs are played. Raises `UserError` where the probability of an answer is wanted
    and cannot be had."""
    shape = config.curriculum
    if shape.max_fresh_groups is None:
        return None
    if not (
        isinstance(context.policy, ScoringPolicy) and isinstance(context.scaffold, KnowsAnswers)
    ):
        adapters = config.policy.engine == "vllm" and config.policy.vllm.publish == "adapter"
        remedy = "policy.vllm.publish=weights, or set it" if adapters else "set it"
        raise UserError(
            f"curriculum.max_fresh_groups={shape.max_fresh_groups}: policy.engine="
            f"{config.policy.engine} with scaffold.kind={config.scaffold.kind} cannot tell how "
            f"likely an answer is; {remedy} to null (all new bugs are played)"
        )
    return Screening(
        max_groups=shape.max_fresh_groups,
        floor=shape.gold_floor,
        cap=shape.gold_cap,
        max_validations=shape.max_validations,
    )
