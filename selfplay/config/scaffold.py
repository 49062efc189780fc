"""How the roles work: `scaffold`, with the bounds of the episodes that have several turns."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfplay.config.checks import above, at_least, share


@dataclass(frozen=True, kw_only=True)
class AgentLimits:
    """Bounds of one agentic episode (`agent/loop.py`); each has its own ending."""

    max_turns: int = 128
    """Answers of one episode."""
    max_tokens: int = 131_072
    """Whole length of the trajectory: prompt, answers and observations."""
    max_turn_tokens: int = 4096
    """Tokens of one answer; a longer one is cut, which is a bad call."""
    wall_s: float = 1800.0
    """Seconds since the episode was opened, waiting for the policy included."""
    command_s: float = 120.0
    """Seconds of one command."""
    max_bad_calls: int = 4
    """Bad calls on end after which the episode is over."""
    max_output: int = 8000
    """Bytes of one observation."""

    def __post_init__(self) -> None:
        names = ("max_turns", "max_tokens", "max_turn_tokens", "max_bad_calls")
        at_least(self, "scaffold.agent.", 1, *names)
        above(self, "scaffold.agent.", 0, "wall_s", "command_s", "max_output")


@dataclass(frozen=True, kw_only=True)
class AgentConfig(AgentLimits):
    """Agentic episodes: their bounds, and how the roles use them."""

    num_open: int = 16
    """Sandboxes that are open at once, over all rounds that are alive."""
    num_resubmit: int = 0
    """Refused submissions of the injector that it may mend."""
    max_reference_runs: int = 1000
    """Runs of the reference program that one attempt may ask for, where a task has one; 0: none."""
    seeded: bool = True
    """The injector is given a file, a function or a commit; false: it chooses itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, "scaffold.agent.", 1, "num_open")
        at_least(self, "scaffold.agent.", 0, "max_reference_runs")


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """Several tries in one episode of the solver, with what the tests say after each."""

    max_tries: int = 3
    """Edits of one episode; 1 is the compact scaffold."""
    max_feedback_tokens: int = 160
    """Tokens of what is told after one try, the template's own included."""
    max_run_s: float = 20.0
    """Seconds that the tests may take after one try, where a bug's own limit is not lower; the
    grading has all of that limit."""

    def __post_init__(self) -> None:
        at_least(self, "scaffold.feedback.", 1, "max_tries", "max_feedback_tokens")
        above(self, "scaffold.feedback.", 0, "max_run_s")


@dataclass(frozen=True, kw_only=True)
class ScaffoldConfig:
    """How the roles work. The keys between `kind` and `agent` are the compact scaffold's: what a
    prompt may hold. A part that has a scaffold's name is read by that one alone."""

    kind: str = "compact"
    """compact (one turn, a few line edits), feedback (the same with several tries, and the tests'
    failures after each) or agentic (tools in a sandbox)."""
    max_prompt_tokens: int = 640
    """Longest prompt."""
    max_functions: int = 2
    """Functions that a solver is shown."""
    max_suspect_lines: int = 5
    """Lines that a solver's prompt names as the likeliest place: those that the failing tests run
    and the passing ones do not. 0: which lines tests run is not recorded."""
    trace_lines: int = 0
    """Lines of the listed functions, as a failing test that is shown ran them last, with the values
    that they changed, where the prompt has room for them; 0: no test is traced."""
    max_function_lines: int = 36
    """Lines of a function that is played on."""
    max_oracle_files: int = 2
    """Test files that an artifact of the compact injector runs."""
    max_oracle_s: float = 3.0
    """Seconds that those test files may take together on the original."""
    show_tests: bool = True
    """Whether a task that has an issue text is shown with its failing tests. false: with the issue
    and functions that its words point to alone, as SWE-RL asks (arXiv 2502.18449)."""
    public_share: float = 1.0
    """Part of the failing tests that a solver is shown; it is graded on all of them."""
    agent: AgentConfig = field(default_factory=AgentConfig)
    """Agentic episodes."""
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    """Tries of the feedback scaffold."""

    def __post_init__(self) -> None:
        share(self, "scaffold.", "public_share")
        at_least(self, "scaffold.", 0, "trace_lines")
