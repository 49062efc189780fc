"""The part of the configuration about agentic episodes: `scaffold.agent`."""

from __future__ import annotations

from dataclasses import dataclass


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
