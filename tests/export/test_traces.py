"""Supervised traces: which episodes count, and what their lines hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.agent.fenced import FencedRenderer
from selfplay.errors import UserError
from selfplay.export.traces import export_traces, is_good, later_messages, prompt_messages
from selfplay.run_dir import RunDir
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Episode, Trajectory, Turn

TOKENIZER = ByteTokenizer()


def make_episode(name: str = "step0/solver/b/0", **changes: Any) -> Episode:
    prompt = TOKENIZER.render("Be brief.", "1| x = 2\n\nFix the bug")
    answer = (*TOKENIZER.encode("1| x = 1"), TOKENIZER.end_of_turn_id)
    trajectory = Trajectory(
        token_ids=prompt + answer,
        loss_mask=(0,) * len(prompt) + (1,) * len(answer),
        logprobs=(0.0,) * len(prompt) + (-0.5,) * len(answer),
        policy_version=4,
    )
    episode = Episode(
        episode_id=name,
        group_id="step0/solver/b",
        role="solver",
        repo="toolz",
        task_id="b",
        bug_id="b",
        status="completed",
        reward=1.0,
        reason="",
        trajectory=trajectory,
        answer="1| x = 1",
        policy_version=4,
        info={"step": 0},
    )
    return dataclasses.replace(episode, **changes)


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"reward": -1.0, "reason": "fail_to_pass"}, False),
        ({"reward": None, "status": "errored"}, False),
        ({"status": "truncated"}, False),
        ({"trajectory": None}, False),
        ({"role": "injector", "reason": "valid", "reward": -0.8}, True),
        ({"role": "injector", "reason": "duplicate", "reward": -1.0}, False),
        ({"role": "injector", "reason": "no_change", "bug_id": None, "reward": -1.0}, False),
    ],
)
def test_which_episodes_are_worth_imitating(changes: dict[str, Any], good: bool) -> None:
    assert is_good(make_episode(**changes)) is good


def write_run(path: Path, *episodes: Episode, engine: str = "scripted") -> Path:
    with RunDir(path) as run:
        run.write_config(f"seed: 0\npolicy:\n  engine: {engine}\n  model: smollm2-135m\n")
        run.append_episodes(episodes)
    return path


def read(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "traces.jsonl").read_text().splitlines()]


def test_a_line_by_value(tmp_path: Path) -> None:
    bad = make_episode("step0/solver/b/1", reward=-1.0)
    run = write_run(tmp_path / "run", make_episode(), bad)
    assert export_traces(run, tmp_path / "out") == 1
    [line] = read(tmp_path / "out")
    trajectory = make_episode().trajectory
    assert trajectory is not None
    assert line == {
        "episode_id": "step0/solver/b/0",
        "piece": 0,
        "role": "solver",
        "repo": "toolz",
        "bug_id": "b",
        "reward": 1.0,
        "policy_version": 4,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "1| x = 2\n\nFix the bug"},
            {"role": "assistant", "content": "1| x = 1"},
        ],
        "token_ids": list(trajectory.token_ids),
        "loss_mask": list(trajectory.loss_mask),
    }


def test_a_prompt_without_system_message() -> None:
    ids = TOKENIZER.render("", "hello")
    trajectory = Trajectory(
        token_ids=ids, loss_mask=(0,) * len(ids), logprobs=(0.0,) * len(ids), policy_version=0
    )
    assert prompt_messages(trajectory, TOKENIZER) == [{"role": "user", "content": "hello"}]


def test_repeated_steps_are_exported_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_episode())
    write_run(run, make_episode())
    assert export_traces(run, tmp_path / "out") == 1


def test_an_empty_run_gives_an_empty_file(tmp_path: Path) -> None:
    assert export_traces(write_run(tmp_path / "run"), tmp_path / "out") == 0
    assert read(tmp_path / "out") == []


def test_a_run_that_names_no_policy(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_episode())
    (run / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match=r"config\.yaml: names no policy"):
        export_traces(run, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export_traces(run, tmp_path / "file" / "out", TOKENIZER)


@pytest.mark.model
def test_prompts_of_the_small_model_are_read_back(tmp_path: Path) -> None:
    """The chat template's headers become roles; what was asked comes back to the letter."""
    from selfplay.cache import cache_root
    from selfplay.modeling.model_files import resolve_model
    from selfplay.policy.transformers import HFTokenizer

    tokenizer = HFTokenizer.load(resolve_model("smollm2-135m", cache_root()))
    prompt = tokenizer.render("Be brief.", "1| x = 'é'\n\n  user\nFix the bug")
    answer = (*tokenizer.encode("1| x = 1"), tokenizer.end_of_turn_id)
    trajectory = Trajectory(
        token_ids=prompt + answer,
        loss_mask=(0,) * len(prompt) + (1,) * len(answer),
        logprobs=(0.0,) * (len(prompt) + len(answer)),
        policy_version=0,
    )
    episode = make_episode(trajectory=trajectory)
    run = write_run(tmp_path / "run", episode, engine="transformers")
    assert export_traces(run, tmp_path / "out") == 1
    [line] = read(tmp_path / "out")
    assert line["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1| x = 'é'\n\n  user\nFix the bug"},
        {"role": "assistant", "content": "1| x = 1"},
    ]


def test_a_chat_of_many_turns_becomes_messages() -> None:
    tokenizer = ByteTokenizer()
    renderer = FencedRenderer(tokenizer)
    prompt = renderer.render("Be brief.", "Do it.", ())
    first, second = tokenizer.encode("Look."), (*tokenizer.encode("Done."), 256)
    middle = renderer.bridge(prompt, first, "Seen.")
    ids = (*middle, *second)
    spans = ((len(prompt), len(prompt) + len(first)), (len(middle), len(ids)))
    mask = tuple(int(any(a <= i < b for a, b in spans)) for i in range(len(ids)))
    trajectory = Trajectory(
        token_ids=ids,
        loss_mask=mask,
        logprobs=(0.0,) * len(ids),
        policy_version=0,
        turns=tuple(Turn(start=a, end=b, policy_version=0) for a, b in spans),
    )
    assert later_messages(trajectory, tokenizer) == [
        {"role": "assistant", "content": "Look."},
        {"role": "user", "content": "Seen."},
        {"role": "assistant", "content": "Done."},
    ]
