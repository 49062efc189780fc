"""2 and 3 processes train exactly what one does, and read each other's checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.learner import checkpoint
from selfplay.learner.packing import pack
from selfplay.learner.ranks.balance import divide
from selfplay.types import TrainingSample

from .ranks import CASES, RESUMED, SAVED_AT, Case
from .samples import ragged_groups

EXACT = [name for name in CASES if not name.endswith("bf16")]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What 1, 2 and 3 ranks left; 2 ranks go on from a checkpoint of 1, and 3 from one of 2."""
    root = tmp_path_factory.mktemp("ranks")
    folders = {size: root / str(size) for size in (1, 2, 3)}
    seen: dict[str, Any] = {}
    for name in CASES:
        case = Case(name)
        case.run(0, SAVED_AT)
        checkpoint.save(folders[1] / name, SAVED_AT, case.trainer, {"saved_by": 1})
        case.run(SAVED_AT, 4)
        seen[name] = case.seen()
    torch.save(seen, folders[1] / "seen.pt")
    program = [sys.executable, str(Path(__file__).parent / "ranks.py"), str(root)]
    subprocess.run(program, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=1600)
    for size in (2, 3):
        errors = [error.read_text() for error in folders[size].glob("error-*")]
        assert (folders[size] / "exits").read_text() == " ".join("0" * size), errors
    return folders


def seen_by(folder: Path) -> dict[str, Any]:
    seen: dict[str, Any] = torch.load(folder / "seen.pt", weights_only=True)
    return seen


def assert_close(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], slack: float) -> None:
    assert set(got) == set(want)
    for name, tensor in want.items():
        assert got[name].shape == tensor.shape
        assert float((got[name].float() - tensor.float()).abs().max()) <= slack, name


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", CASES)
def test_many_ranks_train_what_one_does(played: dict[int, Path], name: str, size: int) -> None:
    want, got = seen_by(played[1])[name], seen_by(played[size])[name]
    exact = name in EXACT
    assert got["num_steps"] == want["num_steps"] == 4
    for ours, theirs in zip(got["stats"], want["stats"], strict=True):
        assert set(ours) == set(theirs)
        for key in ("num_tokens", "num_dropped_gibberish", "num_sample_tokens", "skipped"):
            assert ours[key] == theirs[key]
        if name == "observing":
            assert ours["num_observation_tokens"] == theirs["num_observation_tokens"]
            assert ours["observation_loss"] == pytest.approx(theirs["observation_loss"], abs=1e-5)
        for key in ("loss", "ratio", "entropy", "mismatch_kl", "grad_norm", "max_abs_log_ratio"):
            assert ours[key] == pytest.approx(theirs[key], abs=1e-5 if exact else 0.2)
    if name == "observing":
        assert got["stats"][0]["num_observation_tokens"] == 17
    steps = zip(got["gradients"], want["gradients"], strict=True)
    for number, (ours, theirs) in enumerate(steps):
        if exact or number == 0:
            assert_close(ours, theirs, 1e-5 if exact else 0.05)
    assert_close(got["masters"], want["masters"], 1e-5 if exact else 0.1)
    assert_close(got["live"], want["live"], 1e-5 if exact else 0.1)


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize(("writer", "reader"), [(1, 2), (2, 3), (2, 1), (3, 1)])
def test_any_number_of_ranks_reads_any_checkpoint(
    played: dict[int, Path], name: str, writer: int, reader: int
) -> None:
    want = seen_by(played[1])[name]
    if reader == 1:
        resumed = Case(name)
        path = played[writer] / name / f"step_{SAVED_AT}"
        assert checkpoint.load(path, resumed.trainer) == {"saved_by": writer}
        resumed.run(SAVED_AT, 4)
        got = resumed.seen()
    else:
        got = seen_by(played[reader])[f"{name} resumed"]
    assert got["num_steps"] == 4
    assert_close(got["masters"], want["masters"], 1e-5)
    assert_close(got["live"], want["live"], 1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_sharded_run_exports_an_ordinary_model(played: dict[int, Path], name: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = played[3]
    loaded = AutoModelForCausalLM.from_pretrained(str(folder / f"{name}-hf"))
    live = seen_by(folder)[name]["live"]
    wanted = {key: t for key, t in live.items() if not key.endswith(("lora_A", "lora_B"))}
    assert_close(loaded.state_dict(), wanted, 0.0)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_do_what_the_first_tells(played: dict[int, Path], size: int) -> None:
    want = Case("lora")
    want.run(0, SAVED_AT)
    got = torch.load(played[size] / "team.pt", weights_only=True)
    assert_close(got, want.seen()["live"], 1e-5)
    assert [path.name for path in (played[size] / "team").iterdir()] == ["step_7"]


def test_no_rank_waits_for_one_that_is_gone(played: dict[int, Path]) -> None:
    root = played[1].parent
    assert (root / "raise" / "exits").read_text() == "1 1"
    told = (root / "raise" / "error-0").read_text()
    assert told.startswith("InfrastructureError: rank 0 of 2 ends because another rank did")
    assert "rank 1: ValueError: no more room" in told
    assert (root / "kill" / "exits").read_text() == "-9 1"
    told = (root / "kill" / "error-1").read_text()
    assert told.startswith("InfrastructureError: rank 1 of 2") and "gone" in told


@settings(max_examples=60, deadline=None)
@given(samples=ragged_groups(), num_parts=st.integers(1, 5))
def test_divided_samples_are_all_there_and_balanced(
    samples: list[TrainingSample], num_parts: int
) -> None:
    parts = divide(samples, num_parts)
    assert len(parts) == num_parts
    flat = [one for part in parts for one in part]
    assert sorted(flat, key=repr) == sorted(samples, key=repr)
    sizes = [sum(row.num_tokens for row in pack(p, max_tokens=10_000)) for p in parts if p]
    total = sum(row.num_tokens for row in pack(samples, max_tokens=10_000))
    longest = max(len(one.token_ids) for one in samples)
    assert max(sizes) <= total and max(sizes) <= total / num_parts + longest


def test_prompts_stay_together_where_that_is_cheaper() -> None:
    from .samples import sample

    prompt, other = list(range(10)), list(range(20, 31))
    group = [sample(prompt, [40 + i]) for i in range(3)]
    first, second = divide([group[2], sample(other, [50]), *group[:2]], 2)
    assert first == group and second == [sample(other, [50])]
    assert divide([], 2) == [[], []]
