"""What is played and what it earns: `injector`, `reward`, `curriculum`, `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.config.checks import above, at_least, one_of, share
from selfplay.errors import UserError
from selfplay.types import Limits

SAMPLERS = ("uniform", "least_covered", "promising", "band", "failures")
MAX_AGE = 8
"""Policy versions between a sample and the weights that learn from it, at most."""


@dataclass(frozen=True, kw_only=True)
class InjectorConfig(Limits):
    """What is asked of the injector, and the limits that its artifacts must meet."""

    strategies: dict[str, float] = field(default_factory=dict)
    """{strategy: weight} of direct, removal, history, and with tools feature_add and combine."""

    def __post_init__(self) -> None:
        check_limits(self, "injector.")
        for name, weight in self.strategies.items():
            if not weight >= 0:
                raise UserError(f"injector.strategies.{name}={weight}: must be at least 0")


def check_limits(limits: Limits, part: str) -> None:
    """Raises `UserError` for limits that mean nothing."""
    at_least(limits, part, 0, "min_passing_tests", "min_changed_files", "min_failing_tests")
    above(limits, part, 0, "script_timeout_s")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Rewards of both roles (`roles/rewards.py`)."""

    injector: str = "solve_rate"
    """solve_rate, consistency, band or power."""
    solver: str = "resolved"
    """resolved, similarity or partial."""
    no_edit: float = -1.0
    """What an attempt of the solver earns that gives no patch: an answer that cannot be read, is no
    valid code, or changes nothing. The paper's is -1, as for any wrong patch."""
    alpha: float = 0.8
    """solve_rate: what a bug costs that nobody or everybody solves."""
    low: float = 0.1
    """band: lowest solve rate that is rewarded."""
    high: float = 0.6
    """band: highest solve rate that is rewarded."""
    a: float = 1.0
    """power: exponent of the solve rate."""
    b: float = 1.0
    """power: exponent of one minus the solve rate."""
    unplayed: str = "none"
    """What the injector earns for a valid bug that was not played: none (its episode stays out of
    the loss), or expected (what the probability of the gold answer lets expect)."""

    def __post_init__(self) -> None:
        if self.injector == "power" and (self.a <= 0 or self.b <= 0):
            raise UserError(f"reward.a={self.a}, reward.b={self.b}: both must be positive")
        if not -10.0 <= self.no_edit <= -1.0:
            raise UserError(
                f"reward.no_edit={self.no_edit}: from -10 to -1, what a wrong patch earns"
            )
        one_of(self, "reward.", "unplayed", ("none", "expected"))


@dataclass(frozen=True, kw_only=True)
class AlarmsConfig:
    """When a run says that something is wrong with it (`curriculum/rounds/tripwires.py`); 0: never.
    Nothing to learn for `window` steps is always said."""

    window: int = 3
    """Steps that are looked at together."""
    valid: float = 0.02
    """Share of valid injections below which it does."""
    duplicates: float = 0.5
    """Share of duplicates among valid bugs from which on it does."""
    takeover: float = 0.9
    """Share of one file or one strategy among valid bugs from which on it does."""
    gibberish: float = 0.05
    """Share of noise and loops among sampled tokens from which on it does."""
    errors: float = 0.2
    """Share of episodes that faults of the machine ended from which on it does."""

    def __post_init__(self) -> None:
        at_least(self, "curriculum.alarms.", 1, "window")
        names = ("valid", "duplicates", "takeover", "gibberish", "errors")
        share(self, "curriculum.alarms.", *names)


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Shape of one round, and how many of them make a step."""

    rounds_per_step: int = 1
    """Rounds that one step learns from. With more than one, answers depend on which requests the
    engine happens to get together."""
    max_staleness: int = 0
    """Steps that rounds may be ahead of the learner: (max_staleness + 1) x rounds_per_step rounds
    are alive at once. 0: all that a step learns from is sampled from the weights before it."""
    num_groups: int = 2
    """Peer groups of the injector: repository x strategy."""
    seeds_per_group: int = 2
    """Prompts of each of these groups."""
    samples_per_seed: int = 2
    """Answers to each prompt."""
    group_size: int = 8
    """Attempts of the solver on each bug."""
    first_attempts: int | None = None
    """Attempts on each bug to begin with; the rest of group_size where they can still matter, as
    peers of each other. null: all at once."""
    max_fresh_groups: int | None = None
    """New bugs of a step that are played: those whose gold answer the solver is likeliest to write;
    null: all of them."""
    gold_floor: float = 0.0
    """With max_fresh_groups: smallest probability of the gold answer of a bug that is played."""
    gold_cap: float = 0.7
    """With max_fresh_groups: largest probability of the gold answer of a bug that is played."""
    show_gold: bool = False
    """With max_fresh_groups: the gold answer of each new bug that is played joins its group as one
    more attempt that resolved it. The paper's solver never sees it."""
    gold_counts: str = "one"
    """With show_gold: how many attempts it stands for. one, or expected: group_size times its
    probability, in place of the attempts that wrote it (the same step on average, less noise)."""
    max_validations: int | None = None
    """With max_fresh_groups: edits of a step that are validated, those that a solver which sees the
    edited function alone is likeliest to take back; null: all of them."""
    min_solve_groups: int = 6
    """Bugs of earlier steps are replayed until this many are on the table."""
    higher_order: int = 2
    """Failed attempts of a step that become second-order bugs, at most; 0: none."""
    max_bugs_per_function: int = 4
    """A function with this many bugs is not asked for again."""
    max_bugs_per_file: int | None = None
    """The same for a file; null: any number."""
    max_bugs_per_repo: int | None = None
    """The same for a repository; null: any number."""
    sampler: str = "promising"
    """What is asked for (`curriculum/asking/samplers.py`): uniform, least_covered (repository,
    file, function, strategy), promising (few bugs there, and kinds and functions whose bugs were
    met with both outcomes), band (whose solve rate lies in [replay_low, replay_high]) or failures
    (at which the solver fails)."""
    human_suite: str | None = None
    """Suite of real bugs (`selfplay mine`) that are solved beside the model's own; null: none."""
    human_share: float = 0.2
    """With human_suite: part of a round's bugs that are taken from it, the least tried first."""
    num_tasks: int = 8
    """With task=commits: tasks of a round, those tried in the fewest rounds first."""
    higher_order_share: float = 1.0
    """Part of a round's bugs that are higher-order ones nobody has tried, at most."""
    replay_share: float = 1.0
    """Part of a round's bugs that are replayed, at most."""
    replay_low: float = 0.05
    """Lowest solve rate of a bug that is replayed."""
    replay_high: float = 0.7
    """Highest solve rate of a bug that is replayed."""
    max_replays: int | None = None
    """Steps in which one bug is replayed, at most, so that none is learnt by heart; null: any."""
    entropy_alarm: float = 0.1
    """Nats a token of the solver's answers below which a step warns; 0: never."""
    alarms: AlarmsConfig = field(default_factory=AlarmsConfig)
    """What else is said when it begins."""
    max_idle_steps: int = 5
    """Steps on end without anything to learn that stop the run."""

    def __post_init__(self) -> None:
        names = ("num_groups", "seeds_per_group", "samples_per_seed", "group_size", "num_tasks")
        at_least(self, "curriculum.", 1, *names, "max_idle_steps", "first_attempts")
        at_least(self, "curriculum.", 0, "min_solve_groups", "higher_order", "max_fresh_groups")
        at_least(self, "curriculum.", 0, "max_replays", "max_validations", "entropy_alarm")
        at_least(
            self, "curriculum.", 1, "rounds_per_step", "max_bugs_per_file", "max_bugs_per_repo"
        )
        share(self, "curriculum.", "higher_order_share", "replay_share", "human_share")
        if self.human_share == 1:
            raise UserError("curriculum.human_share=1: leaves no bug of the model's own; lower it")
        if self.show_gold and self.max_fresh_groups is None:
            raise UserError("curriculum.show_gold=true needs curriculum.max_fresh_groups=N")
        if self.gold_counts == "expected" and not self.show_gold:
            raise UserError(
                "curriculum.gold_counts=expected with curriculum.show_gold=false: needs "
                "curriculum.show_gold=true; or set it to one"
            )
        one_of(self, "curriculum.", "gold_counts", ("one", "expected"))
        one_of(self, "curriculum.", "sampler", SAMPLERS)
        if not 0 <= self.max_staleness <= MAX_AGE:
            raise UserError(
                f"curriculum.max_staleness={self.max_staleness}: must be 0 to {MAX_AGE}"
            )
        share(self, "curriculum.", "replay_low", "replay_high", "gold_floor", "gold_cap")


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What a run plays: bugs of the model's own, or tasks that are given."""

    task: str = "selfplay"
    """selfplay, or commits: the solver alone, on the tasks of `commits`; no injector."""
    commits: str | None = None
    """With task=commits: what `selfplay mine` wrote, a run directory (its bugs are repaired), or
    any other suite that `selfplay evaluate` reads."""
    issue: str = "message"
    """With task=commits: issue text of a task. message (as the suite has it: of a commit its whole
    message), subject (its first line), template (made of the failing tests alone), or none."""

    def __post_init__(self) -> None:
        one_of(self, "", "task", ("selfplay", "commits"))
        one_of(self, "", "issue", ("message", "subject", "template", "none"))
        if (self.task == "commits") != (self.commits is not None):
            raise UserError("task=commits and commits=FILE belong together: give both or neither")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Held-out evaluation before and after training."""

    suite: str | None = None
    """Suite file; null: no evaluation."""
    num_tasks: int | None = None
    """Only the first tasks of each suite; null: all."""
    num_samples: int = 8
    """Attempts on each task; 0: only the probability of its gold answer."""
    gold_suites: list[str] = field(default_factory=list)
    """Suite files on whose planted bugs nothing is attempted: only the probability of the gold
    answer is told, at one forward pass a bug. Bugs of `suite` are not told twice; mined ones are
    left out, since each would need a tree of its own."""
    temperature: float = 1.0
    """Of the samples; 1 is the published setting."""
    top_p: float = 0.95
    """Part of the probability that is sampled from; 0.95 is the published setting."""

    def __post_init__(self) -> None:
        at_least(self, "evaluation.", 1, "num_tasks")
        at_least(self, "evaluation.", 0, "num_samples")
