"""Kills a seeded run again and again and shows that its weights end as if it had never been killed.

    .venv/bin/python scripts/crash_learner.py [--kills 20] [--quick] [--loop] [--ahead N]

A tiny Llama over bytes samples, is rewarded, learns, publishes and saves, as `selfplay train` does
(`GrpoLearner`, `RunDir`, `MetricsLog`), in an environment of one rule: even bytes are good.
With `--loop` it is `selfplay train` itself on a vendored sample: sandboxes, validation, grading and
corpus, too. The answers are then the scripted policy's, drawn from a digest of all weights and
scored by the model. Either way one bit that a resumed run had wrong would change all that follows.

With `--ahead N` rounds of the loop are played N steps ahead of the learner. A round that is
repeated is then sampled from newer weights, so weights differ; what must hold is that every round
is counted once and that nothing which was reported is lost.

Compared are exported weights, masters, optimizer state and random state, bit by bit. Tries are
forked from this process, which has loaded the libraries and computed nothing. The last line of
stdout is one JSON object; exit code 1 when anything differs or was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama
from safetensors.torch import load_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from selfplay.commands.train import train
from selfplay.config import LearnerConfig, MetricsConfig, TrainConfig, load_config
from selfplay.learner.grpo import GrpoLearner
from selfplay.learner.packing import pack
from selfplay.learner.trainer import Trainer
from selfplay.policy.transformers import TransformersPolicy
from selfplay.run_dir import RunDir
from selfplay.run_dir.episodes import read_episodes
from selfplay.run_dir.metrics import MetricsLog, within
from selfplay.sampling import SampleRequest
from selfplay.scripted.compact import ByteTokenizer, ScriptedPolicy
from selfplay.seeds import derive_seed
from selfplay.types import Completion, PeerGroup, TrainingSample, Trajectory

Play = Callable[[Path, int], None]
"""(runs directory, number of steps): a run from wherever it stands to its end."""

READY = b"self-check"
NAME = "crash"
MOST_STEPS = 2
"""That one try gets through before it is killed, so that a faster machine is killed as often."""
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
    parser.add_argument("--loop", action="store_true", help="the whole loop of `selfplay train`")
    parser.add_argument("--ahead", type=int, default=0, help="curriculum.max_staleness, of --loop")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    assert transformers.models.llama.modeling_llama  # loaded once, for all tries
    play = functools.partial(play_loop, options.ahead) if options.loop else play_bytes
    kills = 3 if options.quick else options.kills
    with tempfile.TemporaryDirectory(prefix="selfplay-crash-") as folder:
        report = compare(play, Path(folder), kills, random.Random(options.seed))
    sys.stdout.write(json.dumps(report) + "\n")
    same = report["rounds_once"] if options.ahead else report["equal"]
    proven = same and report["num_kills"] and not report["num_lost"]
    return 0 if proven else 1


def compare(play: Play, folder: Path, kills: int, moments: random.Random) -> dict[str, Any]:
    """A run straight through and one that is killed; figures of both."""
    began = time.monotonic()
    steps = 4 + 3 * kills // 5
    straight = Child(play, folder / "straight", steps)
    straight.wait_until_ready()
    startup_s = time.monotonic() - began
    straight.finish()
    straight_s = time.monotonic() - began
    step_s = (straight_s - startup_s) / steps
    killed = folder / "killed"
    at: list[dict[str, Any]] = []
    seen: set[str] = set()
    while len(at) < kills:
        child = Child(play, killed, steps)
        early = len(at) % 5 == 4  # while it starts; else while it plays, learns and saves
        delay = moments.uniform(0.0, startup_s if early else 1.2 * step_s)
        if not early:
            child.wait_until_ready()
        if not child.kill_after(delay, len(rows(killed)) + MOST_STEPS):
            break  # done before its last kill
        at.append({"early": early, "after_s": round(delay, 2), "steps_done": len(rows(killed))})
        seen |= kept_ids(killed)
    Child(play, killed, steps).finish()
    assert [row["step"] for row in rows(killed)] == list(range(steps))
    want, got = weights_of(folder / "straight"), weights_of(killed)
    return {
        "equal": digests(want) == digests(got) and len(want) > 0,
        "rounds_once": rounds_once(killed / NAME, steps),
        "num_kills": len(at),
        "num_lost": len(seen - kept_ids(killed)),
        "num_steps": steps,
        "num_trained_steps": sum(row["learner/groups_trained"] > 0 for row in rows(killed)),
        "num_tensors": len(want),
        "num_tries": json.loads((killed / NAME / "run.json").read_text())["tries"][-1]["try"],
        "startup_s": round(startup_s, 1),
        "step_s": round(step_s, 2),
        "kills": at,
    }


class Child:
    """One try of the run, in a process group of its own."""

    def __init__(self, play: Play, runs: Path, steps: int) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        self._folder = runs
        self._log = runs / "output.txt"
        self._log.write_bytes(b"")
        self._code: int | None = None
        self._pid = os.fork()
        if self._pid == 0:
            os.setpgid(0, 0)
            output = os.open(self._log, os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            code = 1
            try:
                play(runs, steps)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(self._pid, self._pid)  # here, too: it may be killed before it has run at all

    def _done(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is not None

    def wait_until_ready(self) -> None:
        """Everything is open, steps come next."""
        while READY not in self._log.read_bytes() and not self._done():
            time.sleep(0.002)

    def kill_after(self, delay_s: float, most: int) -> bool:
        """Kill with -9, sandboxes and all, or as soon as `most` steps of the run are done: the
        machine may be faster than it was; False when the run was done before."""
        deadline = time.monotonic() + delay_s
        while time.monotonic() < deadline and not self._done():
            if len(rows(self._folder)) >= most:
                break
            time.sleep(0.001)
        if self._done():
            self.finish()
            return False
        os.killpg(self._pid, signal.SIGKILL)
        while not self._done():
            time.sleep(0.001)
        return True

    def finish(self) -> None:
        while not self._done():
            time.sleep(0.01)
        if self._code:
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


def rounds_once(run: Path, steps: int) -> bool:
    """Whether the steps consumed each round, and no episode counts twice; False without rounds."""
    if not (run / "controller.json").exists():
        return False
    found = [(e.episode_id, e.info.get("step")) for e in read_episodes(run)]
    state = json.loads((run / "controller.json").read_text())
    last = state["steps"][str(steps - 1)]
    return (
        (last["next"], last["begun"]) == (steps, [])
        and len(set(found)) == len(found)
        and {step for _, step in found} == set(range(steps))
    )


def rows(runs: Path) -> list[dict[str, Any]]:
    return lines_of(runs / NAME / "metrics.jsonl")


def lines_of(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def weights_of(runs: Path) -> dict[str, torch.Tensor]:
    """Final weights, and everything that the last checkpoint holds."""
    (exported,) = (runs / NAME / "weights").glob("step_*")
    tensors = dict(load_file(str(exported / "model.safetensors")))
    newest = max((runs / NAME / "checkpoints").iterdir(), key=lambda p: int(p.name[5:]))
    with tempfile.NamedTemporaryFile(suffix=".pt") as flat:
        dcp_to_torch_save(newest / "state", flat.name)
        state = torch.load(flat.name, weights_only=True)
    return tensors | {f"checkpoint {name}": tensor for name, tensor in state.items()}


def digests(tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    return {
        name: hashlib.sha256(tensor.cpu().contiguous().view(-1).numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def play_bytes(runs: Path, steps: int) -> None:
    """Prompts of four bytes, eight answers each; the reward is the share of even bytes."""
    settings = LearnerConfig(lora_rank=0, learning_rate=0.003, warmup_steps=2)
    trainer = tiny_trainer(settings)
    learner = GrpoLearner(
        trainer,
        TransformersPolicy(trainer.model, ByteTokenizer()),
        model_dir=no_tokenizer(),
        config=settings,
    )
    with RunDir(runs / NAME) as run_dir:
        restored = learner.restore(run_dir)
        first = restored.step + 1 if restored else 0
        metrics = MetricsLog(run_dir, MetricsConfig(tensorboard=False))
        metrics.truncate_after(first - 1)
        if restored:
            metrics.ensure(first - 1, restored.metrics)
        sys.stderr.write(READY.decode() + "\n")
        sys.stderr.flush()
        for step in range(first, steps):
            row = within("learner", learner.step(byte_groups(learner.policy, step)))
            learner.save(run_dir, step, row)
            metrics.log(step, row)
        learner.export(run_dir, steps - 1)


def byte_groups(policy: TransformersPolicy, step: int) -> list[PeerGroup]:
    """Three groups, a function of the step and of the weights."""
    prompts = [tuple(derive_seed(step, "byte", i, k) % 256 for k in range(4)) for i in range(3)]
    requests = [
        SampleRequest(prompt_ids=prompt, num_samples=8, max_new_tokens=12, seed=step)
        for prompt in prompts
    ]
    groups = []
    for index, answers in enumerate(policy.sample(requests)):
        prompt = prompts[index]
        trajectories = tuple(
            Trajectory(
                token_ids=prompt + answer.token_ids,
                loss_mask=(0,) * len(prompt) + (1,) * len(answer.token_ids),
                logprobs=(0.0,) * len(prompt) + answer.logprobs,
                policy_version=answer.policy_version,
            )
            for answer in answers
        )
        rewards = tuple(
            sum(token % 2 == 0 for token in answer.token_ids) / len(answer.token_ids)
            for answer in answers
        )
        name = f"step{step}/{index}"
        groups.append(PeerGroup(group_id=name, trajectories=trajectories, rewards=rewards))
    return groups


def play_loop(ahead: int, runs: Path, steps: int) -> None:
    """`selfplay train` with a learner of our own."""
    changes = [f"runs_dir={runs}", f"steps={steps}", f"curriculum.max_staleness={ahead}"]
    config = load_config(TrainConfig, "train", [*RUN, *changes])
    trainer = tiny_trainer(config.learner)
    learner = GrpoLearner(
        trainer,
        WeightedScript(trainer),  # type: ignore[arg-type]
        model_dir=no_tokenizer(),
        config=config.learner,
    )
    train(config, lambda _: learner)


class WeightedScript(ScriptedPolicy):
    """Scripted answers, chosen by the weights of a trainer's model and scored by it."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.model = trainer.model
        self._trainer = trainer

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        text = "".join(digests(dict(self.model.state_dict())).values())
        bits = derive_seed(0, text) % (1 << 32)
        drawn = super().sample([replace(r, seed=r.seed ^ bits) for r in requests])
        return [
            [self._scored(r.prompt_ids, answer) for answer in answers]
            for r, answers in zip(requests, drawn, strict=True)
        ]

    @torch.no_grad()
    def _scored(self, prompt: tuple[int, ...], answer: Completion) -> Completion:
        num = len(answer.token_ids)
        zeros = (0.0,) * (len(prompt) + num)
        one = TrainingSample(
            token_ids=prompt + answer.token_ids,
            loss_mask=(0,) * len(prompt) + (1,) * num,
            logprobs=zeros,
            advantages=zeros,
            policy_version=answer.policy_version,
        )
        (row,) = pack([one], max_tokens=1 << 20)
        return replace(answer, logprobs=tuple(self._trainer.score(row)[0].tolist()))


def tiny_trainer(settings: LearnerConfig) -> Trainer:
    """A byte-level Llama with the configured learner; equal weights in each try."""
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16_384,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(shape)
    return Trainer(model.eval(), settings)


def no_tokenizer() -> Path:
    """Bytes need none: an empty directory in the place of the model's."""
    folder = Path(tempfile.gettempdir()) / "selfplay-no-tokenizer"
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
