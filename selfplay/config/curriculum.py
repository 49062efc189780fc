"""What is played and what it earns: `injector`, `reward`, `curriculum`, `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.types import Limits


@dataclass(kw_only=True)
class InjectorConfig:
    """Strategies with their weights, and the limits that an artifact must meet.

    `temperature` is that of the injector's answers (null: `policy.temperature`). `inverse_hunks`:
    each hunk of the bug must have a part in the failures, not just each file.
    """

    strategies: dict[str, float] = field(default_factory=dict)
    temperature: float | None = None
    min_passing_tests: int = 5
    min_changed_files: int = 1
    min_failing_tests: int = 1
    script_timeout_s: float = 90.0
    inverse_hunks: bool = False

    def limits(self) -> Limits:
        """The limits of an injection task."""
        return Limits(
            min_passing_tests=self.min_passing_tests,
            min_changed_files=self.min_changed_files,
            min_failing_tests=self.min_failing_tests,
            script_timeout_s=self.script_timeout_s,
            inverse_hunks=self.inverse_hunks,
        )


@dataclass(kw_only=True)
class RewardConfig:
    """Injector reward (solve_rate, consistency, band, power) and its parameters; solver reward
    (resolved, similarity, partial)."""

    injector: str = "solve_rate"
    solver: str = "resolved"
    alpha: float = 0.8
    low: float = 0.1
    high: float = 0.6
    a: float = 1.0
    b: float = 1.0


@dataclass(kw_only=True)
class CurriculumConfig:
    """Shape of one step.

    `num_groups` injector peer groups (repository x strategy) of `seeds_per_group` prompts, each
    sampled `samples_per_seed` times; every valid bug gets `group_size` solver attempts; bugs of
    earlier steps are replayed until `min_solve_groups` groups are on the table. Of the failed
    attempts of a step, at most `higher_order` become second-order bugs (0: none). `adaptive_kinds`:
    kinds of bug that the solver fixes some of are asked for more often (compact scaffold).
    """

    num_groups: int = 2
    seeds_per_group: int = 2
    samples_per_seed: int = 2
    group_size: int = 8
    min_solve_groups: int = 6
    higher_order: int = 2
    max_bugs_per_function: int = 4
    adaptive_kinds: bool = True
    replay_low: float = 0.05
    replay_high: float = 0.7
    max_idle_steps: int = 5


@dataclass(kw_only=True)
class EvalConfig:
    """Held-out evaluation before and after training; `suite=null` leaves it out.

    Temperature 1 and top-p 0.95 are the published settings.
    """

    suite: str | None = None
    num_tasks: int | None = None
    num_samples: int = 8
    temperature: float = 1.0
    top_p: float = 0.95
