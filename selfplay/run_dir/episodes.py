"""Episodes as JSON and back: one line of `episodes.jsonl` (docs/formats.md).

Example of a trajectory: `{"token_ids": [5, 7], "loss_mask": [0, 1], "logprobs": [0.0, -1.5],
"policy_version": 3, "turns": [[1, 2, 3]]}`, where a turn is start, end and policy version;
`earlier` lists more of the kind where the chat was rewritten. A log-probability that is not finite
is written as its name ("-inf").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.records import from_plain, to_plain
from selfplay.types import Episode, Trajectory


def episode_to_dict(episode: Episode) -> dict[str, Any]:
    """JSON-ready fields of an episode; `num_tokens` counts the sampled ones."""
    trajectory = episode.trajectory
    line: dict[str, Any] = to_plain(replace(episode, trajectory=None))
    info = line.pop("info")
    del line["trajectory"]
    line["num_tokens"] = trajectory.num_sampled if trajectory else 0
    return {**line, "trajectory": _trajectory_to_dict(trajectory), "info": info}


def episode_from_dict(data: Mapping[str, Any]) -> Episode:
    """The episode of a line. Raises `UserError` naming the field that is missing or wrong."""
    try:
        given = data.get("trajectory")
        if isinstance(given, dict):
            data = {**data, "trajectory": _with_turns(given)}
        return from_plain(Episode, data, numbers_as_text=True)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"episode {data.get('episode_id')!r}: {error or 'lists differ'}") from None
    except UserError as error:
        raise UserError(f"episode {data.get('episode_id')!r}: {error}") from None


def read_episodes(path: Path) -> Iterator[Episode]:
    """Episodes of a run directory, or of a file of them; needs no lock."""
    file = path if path.is_file() else path / "episodes.jsonl"
    for number, line in read_episode_lines(file):
        try:
            yield episode_from_dict(line)
        except UserError as error:
            raise UserError(f"{file}:{number}: {error}") from None


def read_episode_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, line) of the episodes that count.

    A step that was cut off and repeated is in the log twice, with another `try`: the last counts.
    """
    last: dict[Any, int] = {}
    for _, line in read_json_lines(file):
        key = _repeats_of(line)
        last[key] = max(last.get(key, 0), int(line.get("try", 1)))
    for number, line in read_json_lines(file):
        if int(line.get("try", 1)) >= last[_repeats_of(line)]:
            yield number, line


def _trajectory_to_dict(trajectory: Trajectory | None) -> dict[str, Any] | None:
    if trajectory is None:
        return None
    line: dict[str, Any] = to_plain(trajectory)
    line["logprobs"] = [x if math.isfinite(x) else str(x) for x in trajectory.logprobs]
    line["turns"] = [[turn.start, turn.end, turn.policy_version] for turn in trajectory.turns]
    earlier = [_trajectory_to_dict(piece) for piece in trajectory.earlier]
    del line["earlier"]
    return {**line, "earlier": earlier} if earlier else line


def _with_turns(given: Mapping[str, Any]) -> dict[str, Any]:
    """A trajectory's line with its turns as records."""
    found = dict(given)
    if "turns" in found:
        found["turns"] = [_turn(values) for values in found["turns"]]
    if "earlier" in found:
        found["earlier"] = [_with_turns(piece) for piece in found["earlier"]]
    return found


def _turn(values: Any) -> dict[str, Any]:
    start, end, version = values
    return {"start": start, "end": end, "policy_version": version}


def _repeats_of(line: Mapping[str, Any]) -> Any:
    """Lines with an equal key are one try of the same thing: a step, else an episode."""
    info = line.get("info")
    step = info.get("step") if isinstance(info, dict) else None
    return line.get("episode_id") if step is None else int(step)
