"""The other side of bench_learner.py: the learner step of TRL's GRPOTrainer on given answers.

Runs in an environment of its own (trl, torch, transformers, peft; nothing of selfplay). Reads one
JSON document from its first line of input, then one step for each further line; answers in JSON
lines. The step is TRL's own loss (`compute_loss`), accelerate's backward, TRL's clipping and
optimizer; generation, rewards and data loading are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch


def write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def open_trainer(job: dict[str, Any], folder: str) -> Any:
    """GRPOTrainer with the best settings for a CPU: no reference model, no recomputation, the
    group as one batch, fused AdamW, fused head, PyTorch's attention kernel."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    peft_config = None
    if job["lora_rank"]:
        from peft import LoraConfig

        peft_config = LoraConfig(
            r=job["lora_rank"],
            lora_alpha=2 * job["lora_rank"],
            target_modules="all-linear",
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        )
    config = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=job["autocast"],
        fp16=False,
        learning_rate=job["learning_rate"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        per_device_train_batch_size=len(job["answers"]),
        gradient_accumulation_steps=1,
        num_generations=job["group_size"],
        max_completion_length=len(job["answers"][0]),
        gradient_checkpointing=False,
        beta=0.0,
        loss_type="dapo",
        epsilon=0.2,
        epsilon_high=0.28,
        scale_rewards="none",
        temperature=1.0,
        max_grad_norm=1.0,
        report_to=[],
        logging_steps=10**9,
        save_strategy="no",
    )
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[job["weights"]]
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=dtype, attn_implementation="sdpa"
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["x"] * len(job["answers"])}),
        processing_class=AutoTokenizer.from_pretrained(job["model"]),
        peft_config=peft_config,
    )


def make_step(job: dict[str, Any], trainer: Any) -> Callable[[], tuple[float, float]]:
    """One learner step; (loss, gradient norm)."""
    prompts, answers = torch.tensor(job["prompts"]), torch.tensor(job["answers"])
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": torch.ones_like(prompts),
        "completion_ids": answers,
        "completion_mask": torch.ones_like(answers),
        "advantages": torch.tensor(job["advantages"]),
        "num_items_in_batch": torch.tensor(float(answers.numel())),
    }
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer()
    model, optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.model_wrapped = model
    parameters = [p for p in model.parameters() if p.requires_grad]

    def step() -> tuple[float, float]:
        model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, inputs)
        trainer.accelerator.backward(loss)
        norm = trainer.accelerator.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach()), float(norm)

    return step


def main() -> int:
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    import trl
    import trl.trainer.utils

    if job["answers_only"]:
        # Off GPUs TRL runs its head at every position; this hands it the GPU's choice of rows.
        trl.trainer.utils._use_triton = lambda device: True
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        trainer = open_trainer(job, folder)
        step = make_step(job, trainer)
    write({"torch": torch.__version__, "trl": trl.__version__})
    for line in sys.stdin:
        if line.strip() == "end":
            break
        began = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            loss, norm = step()
        write({"seconds": time.perf_counter() - began, "loss": loss, "grad_norm": norm})
    write({"max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})
    return 0


if __name__ == "__main__":
    sys.exit(main())
