"""`selfplay train dry_run=true`: what would run where, and what it would take. Starts and writes
nothing; models that are not on this disk are not fetched, and said to be unknown."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from selfplay.cache import cache_place
from selfplay.commands.compose import scaffold_class
from selfplay.commands.output import print_json, print_table
from selfplay.commands.placing import apply, refusal, split_of
from selfplay.config import TrainConfig, to_yaml
from selfplay.placement import GIB, Placement, num_cores

BYTES_PER_TOKEN = 30
"""Of a line of episodes.jsonl for each token: its id, its mask, its log-probability as text."""
STATE_BYTES = 12
"""Of a checkpoint for each trained number: the master and two moments, in fp32."""


def dry_run(config: TrainConfig) -> int:
    """Print the plan; exit code 0, also where the run could not start here: the plan says why."""
    shape, unknown = _shape(config)
    placement = split_of(config, fits=lambda ranks: _fits(config, shape, ranks))
    document: dict[str, Any] = {
        "placement": {
            "gpus": [{"id": g.id, "name": g.name, "memory": g.memory} for g in placement.gpus],
            "learner": list(placement.learner),
            "servers": [list(server) for server in placement.servers],
            "shared": placement.shared,
            "summary": placement.describe(),
            "sandbox": config.sandbox.name,
            "sandboxes": config.sandbox.num_workers or num_cores(),
        },
        "tokens": tokens_of_a_step(config),
        "memory": _memory(config, shape, placement) if shape else {"unknown": unknown},
        "disk": _disk(config, shape),
        "command": _command(config, placement),
        "refused": refusal(config, placement),
        "config": yaml.safe_load(to_yaml(apply(config, placement))),
    }
    if config.json:
        print_json(document)
    else:
        _show(config, document)
    return 0


def tokens_of_a_step(config: TrainConfig) -> dict[str, int]:
    """Answers of a step and bounds on their tokens. The solver's answers lie between those on
    replays alone and those where every injection is a new valid bug."""
    shape, longest = config.curriculum, longest_sequence(config)
    injections = shape.num_groups * shape.seeds_per_group * shape.samples_per_seed
    fresh = injections if shape.max_fresh_groups is None else shape.max_fresh_groups
    validated = injections if shape.max_validations is None else shape.max_validations
    validated = min(injections, validated)
    fewest, groups = shape.min_solve_groups, max(min(validated, fresh), shape.min_solve_groups)
    if config.task == "commits":
        injections, validated, fewest, groups = 0, 0, shape.num_tasks, shape.num_tasks
    answers = injections + groups * shape.group_size
    return {
        "injections": injections,
        "validations_at_most": validated,
        "attempts_at_least": fewest * shape.group_size,
        "attempts_at_most": groups * shape.group_size,
        "longest_sequence": longest,
        "trained_at_most": answers * longest,
    }


def longest_sequence(config: TrainConfig) -> int:
    """Tokens of the longest episode that can come."""
    return scaffold_class(config.scaffold).longest(config.scaffold, config.policy)


def _shape(config: TrainConfig) -> tuple[Any, str]:
    """Shape of the model (`learner.memory.ModelShape`), or None and why it is not known."""
    if config.policy.engine in ("scripted", "openai") or not config.learner.enabled:
        return None, "nothing is trained"
    from selfplay.learner.measures.memory import ModelShape
    from selfplay.modeling.model_files import empty_model, find_model

    path = find_model(config.policy.model, cache_place())
    if path is None:
        return None, f"policy.model={config.policy.model} is not on this disk yet"
    return ModelShape.of(empty_model(path)), ""


def _needed(config: TrainConfig, shape: Any, on_gpu: bool) -> Any:
    from selfplay.learner.measures.memory import CPU_ROW_TOKENS, GPU_ROW_TOKENS, StepShape, estimate

    learner, longest = config.learner, longest_sequence(config)
    derived = GPU_ROW_TOKENS if on_gpu else CPU_ROW_TOKENS
    row = max(longest, learner.micro_batch_tokens or derived)
    step = StepShape(
        row_tokens=row,
        trained_tokens=row,
        chain_tokens=longest,
        lora_rank=learner.lora_rank,
        checkpointing=learner.activation_checkpointing,
        on_gpu=on_gpu,
    )
    return estimate(shape, step)


def _per_rank(needed: Any, ranks: int) -> int:
    """Bytes on one GPU: gradients and optimizer state are spread over the ranks."""
    spread = needed.training_state - needed.training_state // ranks
    return int(needed.total - spread)


def _fits(config: TrainConfig, shape: Any, ranks: int) -> bool:
    gpus = split_of(config, learner=1).gpus
    smallest = min((gpu.memory for gpu in gpus), default=0)
    return shape is None or _per_rank(_needed(config, shape, True), ranks) <= smallest


def _memory(config: TrainConfig, shape: Any, placement: Placement) -> dict[str, Any]:
    needed = _needed(config, shape, bool(placement.gpus))
    per_rank = _per_rank(needed, placement.num_ranks)
    available = min((placement.gpus[g].memory for g in placement.learner), default=None)
    return {
        "parameters": shape.linear_parameters + shape.other_parameters,
        "learner_per_process": per_rank,
        "gpu": available,
        "fits": None if available is None else per_rank <= available,
        "detail": needed.describe(),
    }


def _disk(config: TrainConfig, shape: Any) -> dict[str, int]:
    """Bytes, about: checkpoints are what is kept at a time; episodes are for all steps, were all
    sequences as long as can be."""
    tokens = tokens_of_a_step(config)["trained_at_most"]
    found = {"episodes_at_most": config.steps * tokens * BYTES_PER_TOKEN}
    if shape is not None:
        size = shape.linear_parameters + shape.other_parameters
        rank = config.learner.lora_rank
        trained = rank * shape.linear_sizes if rank else size
        found["checkpoints"] = (config.learner.keep_last + 1) * trained * STATE_BYTES
        found["weights"] = trained * 4 if rank else size * shape.width
    return found


def _command(config: TrainConfig, placement: Placement) -> str:
    """How the run is started so that this placement comes about."""
    if placement.num_ranks == 1 or not config.learner.enabled:
        return "selfplay train ..."
    return f"torchrun --nproc-per-node {placement.num_ranks} -m selfplay train ..."


def _show(config: TrainConfig, document: dict[str, Any]) -> None:
    sys.stdout.write(to_yaml(config))
    placement, memory, disk = document["placement"], document["memory"], document["disk"]
    tokens = document["tokens"]
    needs = memory.get("unknown") or (
        f"{memory['learner_per_process'] / GIB:.1f} GiB for each process of the learner"
        + (f" of {memory['gpu'] / GIB:.0f}" if memory["gpu"] else "")
        + ("" if memory["fits"] is not False else ": DOES NOT FIT")
        + f"; unspread {memory['detail']}"
    )
    screening = f"at most {tokens['validations_at_most']} validated"
    if config.curriculum.max_fresh_groups is not None:
        screening += f", at most {config.curriculum.max_fresh_groups} new bugs played"
    rows = [
        ("GPUs", ", ".join(sorted({g["name"] for g in placement["gpus"]})) or "none"),
        ("who sits where", placement["summary"]),
        ("sandboxes", f"{placement['sandboxes']} at once, sandbox={placement['sandbox']}"),
        ("start with", document["command"]),
        ("memory", needs),
        ("a step", f"{tokens['injections']} injections ({screening}), "
                   f"{tokens['attempts_at_least']} to {tokens['attempts_at_most']} attempts, "
                   f"sequences of up to "
                   f"{tokens['longest_sequence']} tokens, {tokens['trained_at_most']} in all"),
        ("disk", ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in disk.items())),
        ("would start here", document["refused"] or "yes"),
    ]  # fmt: skip
    print_table(f"dry run: {config.name}, {config.steps} steps", ("", ""), rows)
