"""Tiny random models of other architectures: the classes of transformers, numbers large enough to
matter, windows shorter than the sequences that are tried."""

from __future__ import annotations

import copy
from typing import Any

import torch

VOCABULARY = 97
_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    "q_lora_rank": 12, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 12, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
SHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "a bias of the head": ("phi", {}),
    "positions by embeddings": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "queries and keys normed": ("qwen3", {}),
    "a window": ("mistral", {"sliding_window": 6}),
    "windows in some layers": ("gemma3_text", {"sliding_window": 6}),
    "windows, capped scores and logits": ("gemma2", {"sliding_window": 6}),
    "windows, logits scaled": ("cohere2", {"sliding_window": 6, "logit_scale": 0.25}),
    "much scaled": ("granite", {"logits_scaling": 3.0, "attention_multiplier": 0.2}),
    "sinks, windows, experts": ("gpt_oss", {"sliding_window": 6, **_MOE}),
    "chunks": ("llama4_text", {"attention_chunk_size": 6, **_MOE}),
    "values of another size": ("deepseek_v3", _LATENT),
}
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "linear attention between": ("qwen3_5_text", _LINEAR),
    "a state": ("mamba", {"state_size": 8}),
    "a state, and nothing that generate can keep": (
        "bamba", {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
    ),
    "convolutions between": (
        "lfm2", {"layer_types": ["conv", "full_attention"] * 2, "block_ff_dim": 48}
    ),
    "positions as biases": ("bloom", {"n_layer": 2, "n_head": 4}),
}  # fmt: skip


def tiny(kind: str, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A random model of `kind` (a `model_type`), by its own code until it is prepared."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**_COMMON, **settings})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "A_log" not in name:
                weight.normal_(0, 0.2)
            elif "sinks" in name or name.endswith("head.bias"):
                weight.normal_(0, 1)
    return model.to(dtype).eval()


def reading_images() -> Any:
    """A language model inside one that reads images, as Qwen3-VL and Devstral come."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3_vl",
        text_config={**_COMMON, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "deepstack_visual_indexes": [],
        },
    )  # fmt: skip
    return AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()


def untouched(model: Any) -> Any:
    """The same model, by its own code for good."""
    other = copy.deepcopy(model)
    other.config._attn_implementation = "eager"
    return other
