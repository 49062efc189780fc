"""An agentic episode as text for people: live while it is played, or from a stored episode."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from selfplay.agent.loop import TurnRecord
from selfplay.commands.output import plain

MAX_LINES = 30
"""Lines of an argument or an observation that are shown; of more, the middle is left out."""


def show_turn(name: str, number: int, turn: TurnRecord) -> None:
    """One turn on stderr (an `OnTurn`)."""
    text = turn_text(number, turn.thought, turn.tool, turn.arguments, turn.observation)
    sys.stderr.write(f"{name}\n{text}\n")
    sys.stderr.flush()


def episode_text(episode: Mapping[str, Any], max_lines: int = MAX_LINES) -> str:
    """A stored line of `episodes.jsonl`, turn by turn; of an attempt the patches too."""
    info = episode["info"]
    head = (
        f"{episode['episode_id']}  {episode['role']} on {episode['repo']}  {episode['status']}"
        f"  reward {episode['reward']}  {episode['reason']}"
    )
    parts = [head, *(f"{key}: {info[key]}" for key in ("ending", "error") if info.get(key))]
    patches = [
        f"{name}:\n{clipped(str(episode[name]), max_lines)}\n"
        for name in ("patch", "gold")
        if episode.get(name)
    ]
    if "turns" not in info:
        if episode.get("prompt"):
            parts += ["", f"prompt:\n{clipped(str(episode['prompt']), max_lines)}"]
        return "\n".join([*parts, "", f"answer: {plain(episode['answer'])}", *patches])
    parts += ["", "task:", clipped(str(info["user"]), max_lines), ""]
    for number, turn in enumerate(info["turns"], 1):
        parts.append(
            turn_text(
                number,
                turn["thought"],
                turn["tool"],
                turn["arguments"],
                turn["observation"],
                max_lines,
            )
        )
    return "\n".join([*parts, *patches])


def turn_text(
    number: int,
    thought: str,
    tool: str,
    arguments: Mapping[str, str],
    observation: str,
    max_lines: int = MAX_LINES,
) -> str:
    """One turn: what was thought, what was called, what came of it."""
    lines = [f"-- turn {number}: {tool or 'no call'}"]
    if thought:
        lines.append(clipped(thought, max_lines))
    for name, value in arguments.items():
        shown = clipped(value, max_lines)
        lines.append(f"{name}: {shown}" if "\n" not in shown else f"{name}:\n{shown}")
    if observation:
        lines.append("->")
        lines.append(clipped(observation, max_lines))
    return "\n".join(lines) + "\n"


def clipped(text: str, max_lines: int) -> str:
    """The text in whole, or its first and last lines; what is no text is shown as its escape."""
    text = plain(text).rstrip("\n")
    lines = text.split("\n")
    if len(lines) <= max_lines:
        return text
    half = max(1, max_lines // 2)
    left_out = len(lines) - 2 * half
    return "\n".join([*lines[:half], f"[... {left_out} lines ...]", *lines[-half:]])
