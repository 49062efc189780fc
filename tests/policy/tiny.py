"""Tiny random models: real transformers code, sizes at which fp32 is exact enough to compare."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 61


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float32, tied: bool = True) -> Any:
    """A Llama of 2 layers with grouped key heads, weights large enough to matter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config).to(dtype).eval()
