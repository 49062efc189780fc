"""A device that is not there: tensors that claim to lie on it, computed on the CPU.

Its label is `meta`, the one device besides the CPU on which autograd works in every build of
PyTorch; but these tensors hold numbers, and values can be read off them. Whatever mixes them with
a tensor of the CPU raises, more strictly than a GPU does: a number (no dimensions) may be mixed in,
and `to` and `copy_` move; nothing else. FakeTensorMode would not do: it holds no values, which the
sampler and the trainer look at, and its backward pass needs a build for GPUs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import adam
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
_MOVES = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten.copy.default,
}


_WHOLE = {  # their parts would make tensors of that label without numbers
    torch.ops.aten.scaled_dot_product_attention.default,
    torch.ops.aten.where.ScalarSelf,
    torch.ops.aten.where.ScalarOther,
}


class MixedDevices(RuntimeError):
    """An operation on tensors of both devices."""


class PretendTensor(torch.Tensor):
    """Holds `inner`, a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> PretendTensor:
        made: PretendTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"PretendTensor({self.inner!r})"


class Pretending(TorchDispatchMode):
    """Tensors made from nothing but a device are caught too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """Numbers written out, and read off: `torch.tensor` would lay them on the real device of that
    label, `tolist` refuses."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if func is torch.tensor and device is not None and torch.device(device) == DEVICE:
            del kwargs["device"]
            return PretendTensor(func(*args, **kwargs))
        if func is torch.Tensor.tolist:
            return held(args[0]).tolist()
        return func(*args, **kwargs)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operation on what the tensors hold; its results lie where its tensors do."""
    if func._can_decompose() and func not in _WHOLE:  # inference mode hands on whole ones
        with Pretending():
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, PretendTensor)]
    here = [t for t in tensors if not isinstance(t, PretendTensor) and t.dim()]
    if there and here and func not in _MOVES:
        raise MixedDevices(f"{func}: shapes {[tuple(t.shape) for t in here]} are of the CPU")
    device = kwargs.get("device")
    is_there = bool(there) if device is None else torch.device(device) == DEVICE
    if func is torch.ops.aten.copy_.default:
        is_there = isinstance(args[0], PretendTensor)
    if device is not None and is_there:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if "pin_memory" in kwargs:
        kwargs = {**kwargs, "pin_memory": False}
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if not is_there:
        return result
    held = {id(t.inner): t for t in there}  # in-place operations give their own argument back
    # A view shares its tensor's count of changes, which PyTorch 2.11 refuses to one that was made
    # in inference mode while the tensor was not.
    counts = torch.is_inference_mode_enabled() and _is_view(func)
    counts = counts and any(not t.is_inference() for t in there)
    with torch.inference_mode(False) if counts else nullcontext():
        return tree_map(lambda x: held.get(id(x), _wrap(x)), result)


@contextmanager
def pretending() -> Iterator[torch.device]:
    """The device, while tensors can be made there."""
    with pytest.MonkeyPatch.context() as patch, Pretending(), _Literals():
        patch.setattr(adam, "_device_dtype_check_for_fused", lambda param: None)  # by its label
        yield DEVICE


def pretend_model(model: nn.Module) -> Any:
    """Move a model there, parameters and buffers."""
    for module in model.modules():
        for name, param in list(module._parameters.items()):
            if param is not None:
                moved = nn.Parameter(PretendTensor(param.data), requires_grad=param.requires_grad)
                module._parameters[name] = moved
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = PretendTensor(buffer)
    model.tie_weights()  # type: ignore[operator]
    return model


def held(tensor: torch.Tensor) -> torch.Tensor:
    """What a tensor holds."""
    tensor = tensor.detach()
    return tensor.inner if isinstance(tensor, PretendTensor) else tensor


def _is_view(func: Any) -> bool:
    """Whether results share their storage with an argument that stays unchanged."""
    shared = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in shared)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendTensor) else value


def _wrap(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and not isinstance(value, PretendTensor):
        return PretendTensor(value)
    return value
