"""What an episode is told between its answers, as something to learn (`observation_weight`)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from selfplay.agent.fenced import FencedRenderer
from selfplay.agent.tools import TOOLS
from selfplay.chat import Transcript
from selfplay.config import LossConfig, RepetitionConfig, TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.advantages import observation_mask, training_samples
from selfplay.learner.loss import LossStats, observation_loss
from selfplay.learner.measures.degenerate import without_loops
from selfplay.learner.packing import pack
from selfplay.learner.trainer import Trainer
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion, PeerGroup, TrainingSample, Trajectory, Turn

from .samples import sample
from .tiny import tiny_model

CONFIG = TrainerConfig(lora_rank=0, learning_rate=0.02, warmup_steps=1)
TOLD = replace(CONFIG, observation_weight=0.4)


def episode(answer: list[int], heard: list[int], last: list[int]) -> Trajectory:
    """Prompt 1 2, an answer, what came of it, another answer."""
    ids = (1, 2, *answer, *heard, *last)
    start, end = 2, 2 + len(answer)
    again = end + len(heard)
    mask = [0] * len(ids)
    mask[start:end], mask[again:] = [1] * len(answer), [1] * len(last)
    return Trajectory(
        token_ids=ids,
        loss_mask=tuple(mask),
        logprobs=tuple(-3.0 * m for m in mask),
        policy_version=0,
        turns=(
            Turn(start=start, end=end, policy_version=0),
            Turn(start=again, end=len(ids), policy_version=0),
        ),
    )


def group(weight: float = 1.0, rewards: tuple[float, ...] = (1.0, -1.0)) -> PeerGroup:
    episodes = (episode([3], [9, 10, 11], [4]), episode([3], [9, 10, 12], [5, 6]))
    return PeerGroup(group_id="g", trajectories=episodes, rewards=rewards, weight=weight)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ("001100010", "000001100"),
        ("0011", "0000"),  # one answer: nothing was told
        ("00110", "00000"),  # nor what no answer followed
        ("0100101", "0001000"),  # a stretch of one token is the template's
        ("000", "000"),
        ("", ""),
    ],
)
def test_what_is_told_between_answers(mask: str, told: str) -> None:
    assert observation_mask([int(m) for m in mask]) == tuple(int(t) for t in told)


def test_the_worked_example_of_the_docstring() -> None:
    together = torch.tensor([0.5, 0.25]).log().requires_grad_()
    stats = LossStats()
    loss = 0.1 * observation_loss(together, 2, stats)
    (grad,) = torch.autograd.grad(loss, together)
    assert loss.item() == pytest.approx(0.1 * 1.0397, abs=1e-5)
    assert grad.tolist() == pytest.approx([-0.05, -0.05])
    apart = [torch.tensor([p]).log().requires_grad_() for p in (0.5, 0.25)]
    parts = [0.1 * observation_loss(one, 2, stats) for one in apart]
    assert sum(part.item() for part in parts) == pytest.approx(loss.item())
    for part, one in zip(parts, apart, strict=True):
        assert torch.autograd.grad(part, one)[0].tolist() == pytest.approx([-0.05])
    told = stats.means()
    assert told["num_observation_tokens"] == 4
    assert told["observation_loss"] == pytest.approx(1.5 * math.log(2))


def test_a_log_probability_that_is_lost_is_counted() -> None:
    stats = LossStats()
    loss = observation_loss(torch.tensor([-1.0, float("nan")]), 2, stats)
    assert float(loss) == 0.5
    assert stats.means()["num_nonfinite_trainer"] == 1
    assert stats.means()["num_observation_tokens"] == 1


@pytest.mark.parametrize("cut", [False, True])
def test_what_a_tool_said_is_observed_and_no_end_of_an_answer(cut: bool) -> None:
    """Of an answer that was cut the harness writes the end; the other end is that of the reply."""
    tokens = ByteTokenizer()
    renderer, end = FencedRenderer(tokens), tokens.end_of_turn_id
    chat = Transcript()
    prompt = renderer.render("A system.", "A user.", TOOLS)
    for said, heard in (("```bash\nls\n```", "notes.txt"), ("```submit\n```", "")):
        ids = tokens.encode(said) + (() if cut else (end,))
        answer = Completion(
            token_ids=ids,
            logprobs=(-1.0,) * len(ids),
            text=said,
            finish_reason="length" if cut else "stop",
            policy_version=0,
        )
        chat.add(prompt, answer)
        prompt = renderer.bridge(prompt, ids, heard)
    found = chat.trajectory(1.0)
    assert found is not None
    told = observation_mask(found.loss_mask)
    seen = tuple(t for t, o in zip(found.token_ids, told, strict=True) if o)
    assert "notes.txt" in tokens.decode(seen) and seen.count(end) == 1
    assert "ls" not in tokens.decode(seen) and "submit" not in tokens.decode(seen)


def test_trained_groups_alone_are_learnt_from() -> None:
    samples = training_samples([group()]).samples
    assert [s.observations for s in samples] == [(0, 0, 0, 0, 1, 1, 0), (0, 0, 0, 0, 1, 1, 0, 0)]
    assert not training_samples([group(rewards=(1.0, 1.0))]).samples, "without variance: none"
    muted = training_samples([group(weight=0.0)]).samples
    assert [s.observations for s in muted] == [(), ()], "a role that does not learn"


def test_a_loop_is_no_observation() -> None:
    """Tokens that leave the loss were sampled all the same."""
    looping = episode([7, 8] * 40, [9, 10, 11], [4])
    told = PeerGroup(
        group_id="g", trajectories=(looping, episode([3], [9, 10], [4])), rewards=(1.0, -1.0)
    )
    batch = training_samples([told])
    kept, counts = without_loops(batch.samples, RepetitionConfig())
    assert counts["num_dropped_repetition"] > 0
    places = [i for i, o in enumerate(kept[0].observations) if o]
    assert [kept[0].token_ids[i] for i in places] == [10, 11]


def weights_after(config: TrainerConfig, samples: tuple[TrainingSample, ...]) -> tuple[Any, Any]:
    trainer = Trainer(tiny_model(), config)
    stats = [trainer.step(samples) for _ in range(2)]
    for row in stats:
        row.pop("train_s"), row.pop("train_tokens_per_s")
    return trainer.state_dict(), stats


@pytest.mark.parametrize("rank", [0, 3])
def test_zero_weight_changes_no_bit(rank: int) -> None:
    samples = training_samples([group()]).samples
    bare = tuple(replace(s, observations=()) for s in samples)
    want, want_stats = weights_after(replace(CONFIG, lora_rank=rank), bare)
    got, got_stats = weights_after(replace(CONFIG, lora_rank=rank, observation_weight=0.0), samples)
    assert set(got) == set(want) and got_stats == want_stats
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert "observation_loss" not in got_stats[0]
    told, told_stats = weights_after(replace(TOLD, lora_rank=rank), samples)
    assert told_stats[0]["num_observation_tokens"] == 4
    assert not all(torch.equal(told[name], want[name]) for name in want)


def test_an_observation_becomes_likelier() -> None:
    samples = training_samples([group()]).samples

    def likelihood(trainer: Trainer) -> float:
        (row,) = pack(samples, max_tokens=100, observed=True)
        with torch.no_grad():
            return float(trainer.score(row)[0][row.num_trained :].sum())

    trainer = Trainer(tiny_model(), replace(TOLD, observation_weight=5.0))
    before = likelihood(trainer)
    stats = trainer.step(samples)
    assert stats["observation_loss"] == pytest.approx(-before / 4, rel=1e-4)
    assert likelihood(trainer) > before


def test_both_episodes_bring_what_both_were_told() -> None:
    """The shared part of the row is computed once and predicted twice, as in rows of their own."""
    samples = training_samples([group()]).samples
    (row,) = pack(samples, max_tokens=100, observed=True)
    assert row.token_ids.tolist() == [[1, 2, 3, 9, 10, 11, 4, 12, 5, 6]]
    assert row.num_trained == 5 and row.num_observed == 4
    assert row.targets.tolist()[5:] == [10, 11, 10, 12]
    assert row.predictors.tolist()[5:] == [3, 4, 3, 4]
    assert row.temperatures.tolist()[5:] == [1.0] * 4
    apart = pack(samples, max_tokens=1, observed=True)
    assert [one.num_observed for one in apart] == [2, 2]
    assert pack(samples, max_tokens=100)[0].num_observed == 0


def test_a_sample_with_nothing_left_to_train_is_still_observed() -> None:
    """Its row is computed where another row of the step has something to train."""
    rest = replace(sample([1, 2], [3, 4, 5, 6], mask=[0, 0, 0, 0]), observations=(0, 0, 0, 1, 1, 0))
    trainer = Trainer(tiny_model(), replace(TOLD, micro_batch_tokens=1))
    stats = trainer.step([rest, sample([7, 8], [9])])
    assert stats["num_observation_tokens"] == 2 and stats["num_tokens"] == 1
    assert Trainer(tiny_model(), TOLD).step([rest])["skipped"] == 1.0


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UserError, match="observation_weight"):
        LossConfig(observation_weight=-1.0)
