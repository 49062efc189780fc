"""Supervised traces: what worked, as chat messages and as the tokens that were sampled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from selfplay.errors import UserError
from selfplay.files import encode_json, write_atomic
from selfplay.run_dir.episodes import read_episodes
from selfplay.sampling import Tokenizer
from selfplay.types import Episode, Trajectory

_HEADER = re.compile(r"\s*(system|user|assistant)\n")


def export_traces(run: Path, out: Path, tokenizer: Tokenizer | None = None) -> int:
    """Write `out/traces.jsonl`: solved solver episodes, injector episodes with a valid bug.

    Each line: episode_id, role, repo, bug_id, reward, policy_version, messages (system, user,
    assistant), and the aligned token_ids and loss_mask; an episode whose chat was rewritten has a
    line for each `piece`. All lines have the same keys: `datasets` refuses others (datasets#7169).
    The tokenizer is the run's own unless one is given. Returns the number of lines.
    """
    good = [episode for episode in read_episodes(run) if is_good(episode)]
    if good and tokenizer is None:
        tokenizer = tokenizer_of(run)
    lines = [line for episode in good if tokenizer for line in traces(episode, tokenizer)]
    return write_lines(out, "traces.jsonl", lines)


def write_lines(out: Path, name: str, lines: Sequence[Mapping[str, Any]]) -> int:
    """Write a file of JSON lines into the folder of an export; their number. Raises `UserError`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    write_atomic(out / name, b"".join(encode_json(line) + b"\n" for line in lines))
    return len(lines)


def is_good(episode: Episode) -> bool:
    """Worth imitating: resolved attempts, and injections that validated (whatever their reward)."""
    if episode.trajectory is None or episode.status != "completed":
        return False
    if episode.role == "solver":
        return episode.reward is not None and episode.reward > 0
    return episode.bug_id is not None and episode.reason == "valid"


def traces(episode: Episode, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The lines of one episode."""
    assert episode.trajectory is not None
    pieces = episode.trajectory.pieces
    for number, piece in enumerate(pieces):
        if len(piece.turns) > 1 or len(pieces) > 1:
            answers = later_messages(piece, tokenizer)
        else:
            answers = [{"role": "assistant", "content": episode.answer}]
        yield {
            "episode_id": episode.episode_id,
            "piece": number,
            "role": episode.role,
            "repo": episode.repo,
            "bug_id": episode.bug_id,
            "reward": episode.reward,
            "policy_version": episode.policy_version,
            "messages": [*prompt_messages(piece, tokenizer), *answers],
            "token_ids": list(piece.token_ids),
            "loss_mask": list(piece.loss_mask),
        }


def answer_messages(episode: Episode, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """What follows the prompt: one answer, or a chat that ends with one."""
    assert episode.trajectory is not None
    if len(episode.trajectory.turns) > 1:
        return later_messages(episode.trajectory, tokenizer)
    return [{"role": "assistant", "content": episode.answer}]


def prompt_messages(trajectory: Trajectory, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """The prompt as messages, read back from its tokens.

    Turns end with the end-of-turn token; a role's name at the head of a turn's text is a header of
    the chat template. Example of the texts: "system\\nBe brief.", "\\nuser\\nFix it".
    """
    prompt = trajectory.prompt_ids
    turns = _texts(prompt, tokenizer)
    default = ("user",) if len(turns) == 1 else ("system", "user")
    messages = []
    for index, text in enumerate(turns):
        header = _HEADER.match(text)
        role = header[1] if header else default[min(index, len(default) - 1)]
        messages.append({"role": role, "content": text[header.end() if header else 0 :]})
    return messages


def later_messages(trajectory: Trajectory, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """Every answer of a chat, and what it was told after each but the last."""
    messages: list[dict[str, str]] = []
    ids, turns = trajectory.token_ids, trajectory.turns
    for turn, following in zip(turns, [*turns[1:], None], strict=True):
        said = tokenizer.decode(ids[turn.start : turn.end])
        messages.append({"role": "assistant", "content": said})
        between = ids[turn.end : following.start] if following is not None else ()
        for text in _texts(between, tokenizer):
            header = _HEADER.match(text)
            content = text[header.end() if header else 0 :]
            messages.append({"role": header[1] if header else "user", "content": content})
    return messages


def _texts(token_ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Texts of the messages that end in a stretch of tokens, empty ones left out."""
    pieces = _turns(token_ids, tokenizer.end_of_turn_id)
    return [text for piece in pieces if (text := tokenizer.decode(piece)).strip()]


def tokenizer_of(run: Path) -> Tokenizer:
    """The tokenizer of the policy that `config.yaml` names."""
    file = run / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        engine, model = str(config["policy"]["engine"]), str(config["policy"]["model"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{file}: names no policy ({error}); export a whole run") from None
    if engine == "scripted":
        from selfplay.scripted.compact import ByteTokenizer

        return ByteTokenizer()
    from selfplay.cache import cache_root
    from selfplay.modeling.model_files import resolve_model
    from selfplay.policy.transformers import HFTokenizer

    return HFTokenizer.load(resolve_model(model, cache_root()))


def _turns(token_ids: Sequence[int], end_of_turn: int) -> Iterator[list[int]]:
    """Pieces that the end-of-turn token closes; what follows the last one opens the answer."""
    piece: list[int] = []
    for token in token_ids:
        if token == end_of_turn:
            yield piece
            piece = []
        else:
            piece.append(token)
