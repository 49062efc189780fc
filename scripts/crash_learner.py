"""Kills a seeded run again and again and shows that its weights end as if it had never been killed.

    .venv/bin/python scripts/crash_learner.py [--kills 20] [--quick]

The run is the real loop on a vendored sample: sandboxes, validation, grading, corpus, checkpoints,
optimizer. The answers are those of the scripted policy, which of them is drawn from a digest of all
weights, and their log-probabilities come from the trained model, a tiny Llama over bytes: a single
bit that a resumed run had wrong would change what it plays from there on. The last line of stdout
is one JSON object; exit code 1 when the weights differ.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAME = "crash"
RUN = (
    "experiment=samples", "learner=full", f"name={NAME}", "repos.train=[sample-textkit]",
    "sandbox=bubblewrap", "sandbox.num_workers=2", "metrics.tensorboard=false",
    "learner.learning_rate=0.003", "learner.micro_batch_tokens=4096", "learner.keep_last=2",
    "curriculum.num_groups=1", "curriculum.seeds_per_group=2", "curriculum.samples_per_seed=1",
    "curriculum.group_size=4", "curriculum.higher_order=1", "curriculum.max_idle_steps=1000",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="3 kills")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--play", nargs=2, metavar=("RUNS", "STEPS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        return play(Path(options.play[0]), int(options.play[1]))
    kills = 3 if options.quick else options.kills
    with tempfile.TemporaryDirectory(prefix="selfplay-crash-") as folder:
        report = compare(Path(folder), kills, random.Random(options.seed))
    sys.stdout.write(json.dumps(report) + "\n")
    return 0 if report["equal"] and not report["num_lost"] else 1


def compare(folder: Path, kills: int, moments: random.Random) -> dict[str, Any]:
    """A run straight through and one that is killed; figures of both."""
    began = time.monotonic()
    steps = 2 + 3 * kills // 5
    straight = Child(folder / "straight", steps)
    straight.wait_until_ready()
    startup_s = time.monotonic() - began
    straight.finish()
    straight_s = time.monotonic() - began
    step_s = (straight_s - startup_s) / steps
    killed = folder / "killed"
    at: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(at) < kills:
        child = Child(killed, steps)
        early = moments.random() < 0.2  # while it starts; else while it plays, learns and saves
        delay = moments.uniform(0.0, startup_s if early else 2.0 * step_s)
        if not early:
            child.wait_until_ready()
        if not child.kill_after(delay):
            break  # done before its last kill
        at.append({"early": early, "after_s": round(delay, 2), "steps_done": len(rows(killed))})
        seen |= kept_ids(killed)
    Child(killed, steps).finish()
    assert [row["step"] for row in rows(killed)] == list(range(steps))
    want, got = weights_of(folder / "straight"), weights_of(killed)
    return {
        "equal": digests(want) == digests(got) and len(want) > 0,
        "num_kills": len(at),
        "num_lost": len(seen - kept_ids(killed)),
        "num_steps": steps,
        "num_trained_steps": sum(row["groups_trained"] > 0 for row in rows(killed)),
        "num_tensors": len(want),
        "num_tries": json.loads((killed / NAME / "run.json").read_text())["tries"][-1]["try"],
        "startup_s": round(startup_s, 1),
        "step_s": round(step_s, 2),
        "kills": at,
    }


class Child:
    """One try of the run, in a process group of its own."""

    def __init__(self, runs: Path, steps: int) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self._log = runs / "output.txt"
        with self._log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--play", str(runs), str(steps)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> None:
        """Everything is open, steps come next."""
        while b"self-check" not in self._log.read_bytes() and self._process.poll() is None:
            time.sleep(0.02)

    def kill_after(self, delay_s: float) -> bool:
        """Kill with -9, sandboxes and all; False when it was done before."""
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline and self._process.poll() is None:
            time.sleep(0.01)
        if self._process.poll() is not None:
            self.finish()
            return False
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return True

    def finish(self) -> None:
        if self._process.wait(timeout=3600):
            raise SystemExit(f"the run failed:\n{self._log.read_text()[-3000:]}")


def kept_ids(runs: Path) -> set[str]:
    """Bugs and episodes that are on disk; none of them may ever be lost."""
    found = {str(line["episode_id"]) for line in lines_of(runs / NAME / "episodes.jsonl")}
    corpus = runs / NAME / "corpus.sqlite"
    if corpus.exists():
        with contextlib.closing(sqlite3.connect(f"file:{corpus}?mode=ro", uri=True)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'bugs'").fetchone():
                found |= {row[0] for row in db.execute("SELECT bug_id FROM bugs")}
    return found


def rows(runs: Path) -> list[dict[str, Any]]:
    return lines_of(runs / NAME / "metrics.jsonl")


def lines_of(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def weights_of(runs: Path) -> dict[str, Any]:
    """Final weights, and everything that the last checkpoint holds."""
    from safetensors.torch import load_file
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    (exported,) = (runs / NAME / "weights").glob("step_*")
    tensors: dict[str, Any] = dict(load_file(str(exported / "model.safetensors")))
    newest = max((runs / NAME / "checkpoints").iterdir(), key=lambda p: int(p.name[5:]))
    with tempfile.NamedTemporaryFile(suffix=".pt") as flat:
        import torch

        dcp_to_torch_save(newest / "state", flat.name)
        state = torch.load(flat.name, weights_only=True)
    return tensors | {f"checkpoint {name}": tensor for name, tensor in state.items()}


def digests(tensors: dict[str, Any]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.cpu().contiguous().view(-1).numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def play(runs: Path, steps: int) -> int:
    """`selfplay train` with a learner of our own; in the process that is killed."""
    from selfplay.commands.train import train
    from selfplay.config import TrainConfig, load_config

    config = load_config(TrainConfig, "train", [*RUN, f"runs_dir={runs}", f"steps={steps}"])
    return train(config, lambda _: open_tiny_learner(config))


def open_tiny_learner(config: Any) -> Any:
    """A byte-level Llama in the place of the configured model; all else as configured."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from selfplay.learner.grpo import GrpoLearner, trainer_config
    from selfplay.learner.packing import pack
    from selfplay.learner.trainer import Trainer
    from selfplay.policy.base import SampleRequest
    from selfplay.policy.scripted import ScriptedPolicy
    from selfplay.types import Completion, TrainingSample

    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    shape = LlamaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16_384,
        attn_implementation="eager",
    )  # fmt: skip
    trainer = Trainer(LlamaForCausalLM(shape).eval(), trainer_config(config.learner))

    class Policy(ScriptedPolicy):
        """Scripted answers, chosen by the weights and scored by them."""

        model = trainer.model

        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            whole = hashlib.sha256()
            for digest in digests(dict(self.model.state_dict())).values():
                whole.update(digest.encode())
            bits = int.from_bytes(whole.digest()[:4], "big")
            drawn = super().sample([replace(r, seed=r.seed ^ bits) for r in requests])
            return [
                [scored(r.prompt_ids, answer) for answer in answers]
                for r, answers in zip(requests, drawn, strict=True)
            ]

    @torch.no_grad()
    def scored(prompt: tuple[int, ...], answer: Completion) -> Completion:
        num = len(answer.token_ids)
        one = TrainingSample(
            token_ids=prompt + answer.token_ids, loss_mask=(0,) * len(prompt) + (1,) * num,
            logprobs=(0.0,) * (len(prompt) + num), advantages=(0.0,) * (len(prompt) + num),
            policy_version=answer.policy_version,
        )  # fmt: skip
        (row,) = pack([one], max_tokens=1 << 20)
        return replace(answer, logprobs=tuple(trainer.score(row)[0].tolist()))

    no_tokenizer = Path(tempfile.gettempdir()) / "selfplay-no-tokenizer"
    no_tokenizer.mkdir(exist_ok=True)
    return GrpoLearner(
        trainer,
        Policy(),
        model_dir=no_tokenizer,
        temperature=1.0,
        config=config.learner,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main())
