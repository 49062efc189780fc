"""`selfplay episode show`: stored episodes of a run or an `inject` directory, turn by turn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from selfplay.commands.output import print_json
from selfplay.commands.transcript import episode_text
from selfplay.config import EpisodeConfig
from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.run_dir.episodes import episode_from_dict, episode_to_dict, read_episodes

CONFIG, SCHEMA = "episode_show", EpisodeConfig
HELP = """
keys: run=DIR (holds episodes.jsonl) or run=FILE (the attempts of an evaluation),
      id=EPISODE_ID (or a part of it; default: all of them), max_lines=N of an argument or
      observation, json=true (the stored lines)
Prints each episode with its task, its turns and its verdict; of an attempt of an evaluation
(`evaluate out=`, `eval_before.attempts.jsonl` of a run) the prompt, the answer, the patch and the
gold patch. Exit code 1 when none matches.
"""


def stored(file: Path) -> list[dict[str, Any]]:
    """Episodes of a run as lines; the attempts of an evaluation with all that was kept of them."""
    lines = [line for _, line in read_json_lines(file)]
    if not any("sample" in line for line in lines):
        return [episode_to_dict(episode) for episode in read_episodes(file)]
    return [line for line in lines if episode_from_dict(line)]


def run(config: EpisodeConfig) -> int:
    """Print the episodes whose id holds `id`."""
    path = Path(config.run)
    file = path if path.is_file() else path / "episodes.jsonl"
    if not file.is_file():
        raise UserError(
            f"run={path}: has no episodes.jsonl; name a run or an inject directory, or the "
            "attempts of an evaluation"
        )
    found = [line for line in stored(file) if config.id is None or config.id in line["episode_id"]]
    if config.json:
        print_json(found)
    else:
        for episode in found:
            sys.stdout.write(episode_text(episode, config.max_lines) + "\n")
    return 0 if found else 1
