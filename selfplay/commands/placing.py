"""Where a run's learner and servers go, and one clear line where that cannot be."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable

from selfplay.config import PolicyConfig, TrainConfig, VLLMConfig
from selfplay.errors import UserError
from selfplay.placement import SHARED_SERVER, Placement, driver_problem, find_gpus, place

log = logging.getLogger(__name__)

MEMORY_WORD = "--gpu-memory-utilization"
PARALLEL_WORD = "--tensor-parallel-size"


def split_of(
    config: TrainConfig,
    learner: int | None = None,
    fits: Callable[[int], bool] = lambda ranks: True,
) -> Placement:
    """As configured; `learner` GPUs where the configuration leaves that open."""
    split, served = config.split, config.policy.vllm
    gpus = find_gpus(config.devices)
    if not config.learner.enabled and config.policy.engine != "transformers":
        gpus = ()  # nothing here learns or samples in this process
    return place(
        gpus,
        config.policy.engine,
        learner=split.learner if split.learner is not None else learner,
        servers=split.servers,
        gpus_per_server=split.gpus_per_server,
        serves=not served.urls and not served.gpus,
        fits=fits,
    )


def placed(config: TrainConfig) -> TrainConfig:
    """The configuration with what follows from the GPUs of this machine, for this process alone:
    a run directory keeps what was asked for. Raises `UserError` where the run cannot start here.
    """
    placement = split_of(config)
    problem = refusal(config, placement)
    if problem:
        raise UserError(problem)
    idle = unused(config, placement)
    if idle and config.split.min_gpus:
        raise UserError(f"{config.name} needs a GPU in this process: {idle}")
    if idle:
        log.warning("%s; computing on the CPU (devices=cpu says that this is meant)", idle)
    processes = num_processes()
    asked = config.split.learner is not None or config.split.min_gpus > 1
    return apply(config, split_of(config, None if asked else processes))


def refusal(config: TrainConfig, placement: Placement) -> str:
    """Why a run cannot start here as things are, "" where it can."""
    if config.devices.startswith("fake"):
        return f"devices={config.devices}: imagined GPUs are for dry_run=true"
    num = len(placement.gpus)
    if num < config.split.min_gpus:
        told = f" ({problem})" if (problem := driver_problem()) else ""
        return (
            f"{config.name} needs {config.split.min_gpus} GPUs (split.min_gpus), this machine has "
            f"{num}{told}; dry_run=true devices=fake:8 shows the plan, experiment=quickstart needs "
            "none"
        )
    asked = config.split.learner is not None or config.split.min_gpus > 1
    if asked and num and config.learner.enabled and placement.num_ranks != num_processes():
        return (
            f"the learner has {placement.num_ranks} GPUs but {num_processes()} processes: start "
            f"with torchrun --nproc-per-node {placement.num_ranks} -m selfplay train ..., or set "
            f"split.learner={num_processes()}"
        )
    return ""


def unused(config: TrainConfig, placement: Placement) -> str:
    """Why GPUs that the run could have would stay idle: torch or the driver cannot use them."""
    if config.devices != "auto":
        return ""
    if not placement.gpus:
        return driver_problem()
    computes = {config.policy.device} if config.policy.engine == "transformers" else set()
    computes |= {config.learner.device} if config.learner.enabled else set()
    if computes <= {"cpu"}:
        return ""
    from selfplay.modeling.devices import why_no_gpu

    reason = why_no_gpu()
    return reason and f"nvidia-smi lists {len(placement.gpus)} GPUs, but {reason}"


def num_processes() -> int:
    """Processes of this run on this machine, as torchrun says; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def apply(config: TrainConfig, placement: Placement) -> TrainConfig:
    """Devices and servers as placed."""
    if config.devices == "cpu":
        policy = dataclasses.replace(config.policy, device="cpu")
        learner = dataclasses.replace(config.learner, device="cpu")
        return dataclasses.replace(config, policy=policy, learner=learner)
    if not placement.servers:
        return config
    return dataclasses.replace(config, policy=_served(config.policy, placement))


def _served(policy: PolicyConfig, placement: Placement) -> PolicyConfig:
    return dataclasses.replace(policy, vllm=servers_of(policy.vllm, placement))


def servers_of(config: VLLMConfig, placement: Placement) -> VLLMConfig:
    """One server for each place, with the arguments that its place asks for; the user's win."""
    words: list[str] = []
    if placement.shared and MEMORY_WORD not in config.args:
        words += [MEMORY_WORD, str(SHARED_SERVER)]
    width = len(placement.servers[0])
    if width > 1 and PARALLEL_WORD not in config.args:
        words += [PARALLEL_WORD, str(width)]
    return dataclasses.replace(
        config,
        num_servers=len(placement.servers),
        gpus=[",".join(placement.ids(server)) for server in placement.servers],
        args=[*words, *config.args],
    )
