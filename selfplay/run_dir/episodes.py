"""Episodes as JSON and back: one line of `episodes.jsonl` (docs/formats.md).

Example of a trajectory: `{"token_ids": [5, 7], "loss_mask": [0, 1], "logprobs": [0.0, -1.5],
"policy_version": 3, "turns": [[1, 2, 3]]}`, where a turn is start, end and policy version. A
log-probability that is not finite is written as its name ("-inf").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.types import Episode, Trajectory, Turn


def episode_to_dict(episode: Episode) -> dict[str, Any]:
    """JSON-ready fields of an episode; `num_tokens` counts the sampled ones."""
    return {
        "episode_id": episode.episode_id,
        "group_id": episode.group_id,
        "role": episode.role,
        "repo": episode.repo,
        "task_id": episode.task_id,
        "bug_id": episode.bug_id,
        "status": episode.status,
        "reward": episode.reward,
        "reason": episode.reason,
        "answer": episode.answer,
        "policy_version": episode.policy_version,
        "num_tokens": sum(episode.trajectory.loss_mask) if episode.trajectory else 0,
        "trajectory": _trajectory_to_dict(episode.trajectory),
        "info": dict(episode.info),
    }


def episode_from_dict(data: Mapping[str, Any]) -> Episode:
    """The episode of a line. Raises `UserError` naming the field that is missing or wrong."""
    try:
        return Episode(
            episode_id=data["episode_id"],
            group_id=data["group_id"],
            role=data["role"],
            repo=data["repo"],
            task_id=data["task_id"],
            bug_id=data["bug_id"],
            status=data["status"],
            reward=None if data["reward"] is None else float(data["reward"]),
            reason=data["reason"],
            trajectory=_trajectory_from_dict(data["trajectory"]),
            answer=data["answer"],
            policy_version=int(data["policy_version"]),
            info=dict(data["info"]),
        )
    except KeyError as error:
        raise UserError(f"episode: field {error.args[0]!r} is missing") from None
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"episode {data.get('episode_id')!r}: {error or 'lists differ'}") from None


def read_episodes(path: Path) -> Iterator[Episode]:
    """Episodes of a run directory, or of a file of them; needs no lock.

    A step that was cut off and repeated is in the log twice, with another `try`: the last counts.
    """
    file = path if path.is_file() else path / "episodes.jsonl"
    last: dict[Any, int] = {}
    for _, line in read_json_lines(file):
        key = _repeats_of(line)
        last[key] = max(last.get(key, 0), int(line.get("try", 1)))
    for number, line in read_json_lines(file):
        if int(line.get("try", 1)) < last[_repeats_of(line)]:
            continue
        try:
            yield episode_from_dict(line)
        except UserError as error:
            raise UserError(f"{file}:{number}: {error}") from None


def _trajectory_to_dict(trajectory: Trajectory | None) -> dict[str, Any] | None:
    if trajectory is None:
        return None
    return {
        "token_ids": list(trajectory.token_ids),
        "loss_mask": list(trajectory.loss_mask),
        "logprobs": [x if math.isfinite(x) else str(x) for x in trajectory.logprobs],
        "policy_version": trajectory.policy_version,
        "turns": [[turn.start, turn.end, turn.policy_version] for turn in trajectory.turns],
        "temperature": trajectory.temperature,
    }


def _trajectory_from_dict(data: Mapping[str, Any] | None) -> Trajectory | None:
    if data is None:
        return None
    return Trajectory(
        token_ids=tuple(int(token) for token in data["token_ids"]),
        loss_mask=tuple(int(mask) for mask in data["loss_mask"]),
        logprobs=tuple(float(logprob) for logprob in data["logprobs"]),
        policy_version=int(data["policy_version"]),
        turns=tuple(
            Turn(start=int(start), end=int(end), policy_version=int(version))
            for start, end, version in data.get("turns", ())
        ),
        temperature=float(data.get("temperature", 1.0)),
    )


def _repeats_of(line: Mapping[str, Any]) -> Any:
    """Lines with an equal key are one try of the same thing: a step, else an episode."""
    info = line.get("info")
    step = info.get("step") if isinstance(info, dict) else None
    return line.get("episode_id") if step is None else int(step)
