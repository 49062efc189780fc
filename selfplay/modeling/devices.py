"""Where a model runs: chosen once, when it is loaded; every later tensor goes where the model is.

A torch device and what follows from it, in one place: the choice, whether it is a GPU, and what
running out of its memory means.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from selfplay.errors import UserError

CHOICES = ("auto", "cpu", "cuda")


def choose_device(name: str, key: str) -> torch.device:
    """The device that the configuration's `key` names; auto: a GPU where torch sees one.

    Of several GPUs the current one, which `distributed.py` sets for each rank.
    """
    if name not in CHOICES:
        raise UserError(f"{key}={name!r}: must be one of {', '.join(CHOICES)}")
    visible = torch.cuda.is_available()
    if name == "cuda" and not visible:
        raise UserError(f"{key}=cuda: no GPU can be used ({why_no_gpu()}); set {key}=auto or cpu")
    if name == "cpu" or not visible:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def why_no_gpu() -> str:
    """Why torch sees no GPU, in its own words; "" where it sees one."""
    if torch.cuda.is_available():
        return ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # a driver too old for it, or a CPU build
        return f"torch {torch.__version__}: {str(error).strip().splitlines()[0]}"
    return f"torch {torch.__version__} sees no GPU"


def device_of(model: Any) -> torch.device:
    """Where the weights of a model lie."""
    device: torch.device = next(model.parameters()).device
    return device


@contextlib.contextmanager
def memory_boundary(work: str, remedy: str) -> Iterator[None]:
    """The GPU's memory running out during `work` is the user's to mend, by `remedy`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).split(". ")[0]
        raise UserError(f"the GPU's memory ran out while {work} ({reason}); {remedy}") from error
