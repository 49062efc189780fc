"""Layers compiled by `torch.compile`, for training alone: what lies between two matrix products
becomes one kernel, forward and backward. Attention is called and not looked into.
"""

from __future__ import annotations

from typing import Any

from selfplay.modeling.attention import attention_function, decoder_of
from selfplay.modeling.variants import ATTENTION_NAME


def compile_layers(model: Any) -> None:
    """Compile each layer's forward pass for training, in place; any number of tokens.

    What the compiler refuses runs as it is, and is logged by it.
    """
    import torch._dynamo
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, torch.compiler.disable(attention_function))  # type: ignore[no-untyped-call]
    config: Any = torch._dynamo.config
    config.suppress_errors = True
    config.recompile_limit = max(config.recompile_limit, 64)
    for layer in decoder_of(model).layers:
        plain = layer.forward
        layer.forward = _Training(layer, plain, torch.compile(plain, dynamic=True))


class _Training:
    """The compiled forward pass of a layer that trains, the plain one of a layer that does not."""

    def __init__(self, layer: Any, plain: Any, compiled: Any) -> None:
        self._layer, self._plain, self._compiled = layer, plain, compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return (self._compiled if self._layer.training else self._plain)(*args, **kwargs)
