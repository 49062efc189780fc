"""Preference pairs: on one bug a resolved attempt and a failed one, from the same prompt.

The lines have the columns of TRL's conversational preference data: prompt, chosen, rejected.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from selfplay.export.traces import answer_messages, prompt_messages, tokenizer_of, write_lines
from selfplay.run_dir.episodes import read_episodes
from selfplay.sampling import Tokenizer
from selfplay.types import Episode


def export_preferences(run: Path, out: Path, tokenizer: Tokenizer | None = None) -> int:
    """Write `out/preferences.jsonl`; the number of pairs.

    Each line: prompt, chosen, rejected (messages), bug_id, repo, chosen_id, rejected_id. An attempt
    is in one pair at most, and pairs are the same every time.
    """
    groups: dict[tuple[str, tuple[int, ...]], list[Episode]] = defaultdict(list)
    for episode in read_episodes(run):
        if episode.role == "solver" and episode.bug_id and _judged(episode):
            assert episode.trajectory is not None
            groups[episode.bug_id, episode.trajectory.prompt_ids].append(episode)
    pairs = [pair for group in groups.values() for pair in _pairs(group)]
    if pairs and tokenizer is None:
        tokenizer = tokenizer_of(run)
    lines = [_line(*pair, tokenizer) for pair in pairs if tokenizer]
    return write_lines(out, "preferences.jsonl", lines)


def _judged(episode: Episode) -> bool:
    """Whether an attempt has a verdict of its own: not cut off, no fault of the machine."""
    done = episode.trajectory is not None and episode.status == "completed"
    return done and episode.reward is not None and bool(episode.answer.strip())


def _pairs(group: list[Episode]) -> list[tuple[Episode, Episode]]:
    """Distinct answers of one prompt, resolved with failed, in the order of the episodes."""
    distinct = list({episode.answer: episode for episode in reversed(group)}.values())[::-1]
    good = [e for e in distinct if e.reason in ("", "resolved") and (e.reward or 0) > 0]
    bad = [e for e in distinct if (e.reward or 0) <= 0]
    return list(zip(good, bad, strict=False))


def _line(good: Episode, bad: Episode, tokenizer: Tokenizer) -> dict[str, Any]:
    assert good.trajectory is not None
    return {
        "prompt": prompt_messages(good.trajectory, tokenizer),
        "chosen": answer_messages(good, tokenizer),
        "rejected": answer_messages(bad, tokenizer),
        "bug_id": good.bug_id,
        "repo": good.repo,
        "chosen_id": good.episode_id,
        "rejected_id": bad.episode_id,
    }
