"""Supervised traces: what worked, as chat messages and as the tokens that were sampled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.run_dir import read_lines, write_atomic


def export_traces(run: Path, out: Path) -> int:
    """Write `out/traces.jsonl`: solved solver episodes and injector episodes whose bug is valid.

    Each line: role, repo, bug_id, reward, policy_version, prompt (text), answer (text), and the
    aligned token_ids and loss_mask of the trajectory. Returns the number of lines.
    """
    episodes = read_lines(run / "episodes.jsonl")
    lines = [json.dumps(trace, ensure_ascii=True) for trace in good_traces(episodes)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "traces.jsonl", "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    return len(lines)


def good_traces(episodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Traces worth imitating: resolved attempts, and injections that validated."""
    for episode in episodes:
        solved = episode["role"] == "solver" and (episode["reward"] or 0) > 0
        planted = episode["role"] == "injector" and episode["reason"] == "valid"
        trajectory = episode["trajectory"]
        if trajectory is None or not (solved or planted):
            continue
        yield {
            "role": episode["role"],
            "repo": episode["repo"],
            "bug_id": episode["bug_id"],
            "reward": episode["reward"],
            "policy_version": episode["policy_version"],
            "messages": [
                {"role": "user", "content": episode["info"].get("prompt", "")},
                {"role": "assistant", "content": episode["answer"]},
            ],
            "token_ids": trajectory["token_ids"],
            "loss_mask": trajectory["loss_mask"],
        }
