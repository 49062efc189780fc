"""How the roles work: `scaffold`, and the bounds of an agentic episode in `scaffold.agent`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class AgentConfig:
    """Bounds of an agentic episode (`agent/loop.py`), and how the roles use it.

    num_open         sandboxes that are open at once
    num_resubmit     refused submissions of the injector that it may mend
    seeded           the injector is given a file, function or commit; else it chooses itself
    """

    max_turns: int = 128
    max_tokens: int = 131_072
    max_turn_tokens: int = 4096
    wall_s: float = 1800.0
    command_s: float = 120.0
    max_bad_calls: int = 4
    max_output: int = 8000
    num_open: int = 16
    num_resubmit: int = 0
    seeded: bool = True


@dataclass(kw_only=True)
class ScaffoldConfig:
    """How the roles work: `kind` is compact (one turn) or agentic (tools in a sandbox).

    The other keys are the compact scaffold's: what a prompt may hold. `public_share`: part of the
    failing tests that a solver is shown; it is graded on all of them.
    """

    kind: str = "compact"
    max_prompt_tokens: int = 640
    max_functions: int = 2
    max_function_lines: int = 36
    max_oracle_files: int = 2
    max_oracle_s: float = 3.0
    public_share: float = 1.0
    agent: AgentConfig = field(default_factory=AgentConfig)
