"""Several processes that train together, and the cases that they are put through.

As a program it starts worlds of 2 and 3 ranks, one after the other, which go through `CASES` and
leave what they saw in files; then two worlds in which a rank fails. All are forked from this one
process, which has loaded the libraries and started no thread.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]

sys.path[:0] = [] if __package__ else [str(ROOT)]

from selfplay.config import TrainerConfig  # noqa: E402
from selfplay.learner import checkpoint  # noqa: E402
from selfplay.learner.advantages import observation_mask  # noqa: E402
from selfplay.learner.publish import save_hf  # noqa: E402
from selfplay.learner.ranks.distributed import ALONE, World, joined_world, whole  # noqa: E402
from selfplay.learner.ranks.rank_group import RankGroup  # noqa: E402
from selfplay.learner.trainer import Trainer  # noqa: E402
from selfplay.types import TrainingSample  # noqa: E402
from tests.learner.samples import sample  # noqa: E402
from tests.learner.tiny import tiny_model  # noqa: E402

LORA = TrainerConfig(
    lora_rank=2, learning_rate=0.02, warmup_steps=2, max_grad_norm=1e9, micro_batch_tokens=40
)
FULL = replace(LORA, lora_rank=0)
CASES: dict[str, tuple[TrainerConfig, dict[str, Any]]] = {
    "lora": (LORA, {}),
    "observing": (replace(LORA, observation_weight=0.5), {}),
    "full": (FULL, {}),
    "untied": (replace(FULL, activation_checkpointing=True), {"tied": False}),
    "lora-bf16": (LORA, {"dtype": torch.bfloat16}),
    "full-bf16": (FULL, {"dtype": torch.bfloat16}),
}
RESUMED = ("lora", "full")
SAVED_AT = 2
"""Cases save their checkpoint after this many steps."""


def batches() -> list[list[TrainingSample]]:
    """Ragged steps: many groups, fewer samples than ranks, one sample, uneven lengths, clipping."""
    generator = torch.Generator().manual_seed(5)

    def tokens(num: int) -> list[int]:
        return torch.randint(0, 60, (num,), generator=generator).tolist()

    groups = []
    for size, prompt_length in ((4, 9), (3, 30), (1, 2), (5, 17)):
        prompt = tokens(prompt_length)
        groups.append(
            [
                sample(prompt, tokens(1 + 3 * i), 1.5 if i % 2 else -1.0, -3.0 - i)
                for i in range(size)
            ]
        )
    noise = sample(tokens(3), tokens(2), 1.0, -30.0)  # gibberish: leaves the denominator
    return [[*groups[0], *groups[1], *groups[2]], groups[2], [*groups[3], noise], groups[0][:2]]


def told(one: TrainingSample) -> TrainingSample:
    """The same with the inner tokens of a long answer as an observation."""
    start, end = one.loss_mask.index(1), len(one.loss_mask)
    mask = tuple(int(m and not start < i < end - 1) for i, m in enumerate(one.loss_mask))
    return replace(one, loss_mask=mask, observations=observation_mask(mask))


class Case:
    """One trainer, and the gradients that its optimizer was given, whole."""

    def __init__(self, name: str, world: World = ALONE) -> None:
        config, model = CASES[name]
        self.trainer = Trainer(tiny_model(**model), config, world)
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.stats: list[dict[str, float]] = []
        self.trainer.optimizer.register_step_pre_hook(lambda *_: self._look())

    def _look(self) -> None:
        masters = self.trainer.masters.items()
        assert all(master.grad is not None for _, master in masters)
        self.gradients.append({n: whole(m.grad).clone() for n, m in masters})  # type: ignore[arg-type]

    def run(self, start: int, stop: int) -> None:
        """Steps `start .. stop - 1`; ranks beside the first give no samples."""
        for samples in batches()[start:stop]:
            if self.trainer.config.observation_weight:
                samples = [told(one) for one in samples]
            given = samples if self.trainer.world.is_first else []
            self.stats.append(self.trainer.step(given))

    def seen(self) -> dict[str, Any]:
        """Everything to be compared."""
        masters = {name: whole(m).detach().clone() for name, m in self.trainer.masters.items()}
        live = {name: tensor.clone() for name, tensor in self.trainer.model.state_dict().items()}
        return {
            "gradients": self.gradients, "stats": self.stats, "masters": masters, "live": live,
            "num_steps": self.trainer.num_steps,
        }  # fmt: skip


def play(world: World, out: Path, given: Path) -> None:
    """All cases straight through and saved; then each of `given` continued from its checkpoint."""
    seen: dict[str, Any] = {}
    for name in CASES:
        case = Case(name, world)
        case.run(0, SAVED_AT)
        checkpoint.save(out / name, SAVED_AT, case.trainer, {"saved_by": world.size})
        case.run(SAVED_AT, 4)
        if world.is_first:
            save_hf(case.trainer.model, None, out / f"{name}-hf")
            seen[name] = case.seen()
            continue
        whole_masters = [whole(m) for m in case.trainer.masters.values()]
        assert all(torch.isfinite(m).all() for m in whole_masters)
    for name in RESUMED:
        resumed = Case(name, world)
        checkpoint.load(given / name / f"step_{SAVED_AT}", resumed.trainer)
        resumed.run(SAVED_AT, 4)
        if world.is_first:
            seen[f"{name} resumed"] = resumed.seen()
        else:
            [whole(m) for m in resumed.trainer.masters.values()]
    if world.is_first:
        torch.save(seen, out / "seen.pt")
    follow_a_while(world, out)


def follow_a_while(world: World, out: Path) -> None:
    """The same by orders of rank 0."""
    team = RankGroup(Case("lora", world).trainer)
    if not world.is_first:
        return team.follow()
    for samples in batches()[:SAVED_AT]:
        team.step(samples)
    path = team.save(out / "team", 7, {"step": 7}, keep_last=1)
    assert team.load(path) == {"step": 7}
    team.dismiss()
    torch.save(team.trainer.model.state_dict(), out / "team.pt")
    return None


def fail(world: World, failing: int, how: str) -> None:
    """One rank ends in the middle of what all do together."""
    world.gather(0)
    if world.rank == failing:
        if how == "raise":
            raise ValueError("no more room")
        os.kill(os.getpid(), signal.SIGKILL)
    world.broadcast(0)
    world.gather(1)


def one_rank(rank: int, size: int, port: int, note: Path, work: Callable[[World], None]) -> None:
    """The life of one rank; what it fails with goes into a file."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    try:
        with joined_world() as world:
            work(world)
    except BaseException as error:
        note.write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        os._exit(1)


def start_world(size: int, out: Path, work: Callable[[World], None]) -> None:
    """Run `work` on `size` ranks without an agent that would end them; `exits` tells how."""
    out.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        multiprocessing.get_context("fork").Process(
            target=one_rank, args=(rank, size, port, out / f"error-{rank}", work)
        )
        for rank in range(size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=400)
        rank.kill()
        rank.join()
    (out / "exits").write_text(" ".join(str(rank.exitcode) for rank in ranks))


def main(root: Path) -> None:
    """`root/1` holds what one process has saved."""
    for size in (2, 3):
        out, given = root / str(size), root / str(size - 1)
        start_world(size, out, functools.partial(play, out=out, given=given))
    for failing, how in ((1, "raise"), (0, "kill")):
        start_world(2, root / how, functools.partial(fail, failing=failing, how=how))


if __name__ == "__main__":
    import transformers.models.llama.modeling_llama  # noqa: F401

    main(Path(sys.argv[1]))
