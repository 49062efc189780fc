"""Tiny random models: real transformers code, sizes at which fp32 is exact enough to compare."""

from __future__ import annotations

from pathlib import Path
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


class TinyChatModel:
    """A model directory as a user names one: a tiny Llama over bytes with a ChatML template."""

    def __init__(self, seed: int = 0) -> None:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<|im_end|>",
            additional_special_tokens=["<|im_start|>"],
            chat_template=(
                "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
                "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
            ),
        )
        torch.manual_seed(seed)
        shape = LlamaConfig(
            vocab_size=len(letters) + 2,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=16_384,
        )
        self.model = LlamaForCausalLM(shape).eval()

    def save_to(self, directory: Path) -> None:
        """Write it as transformers does."""
        self.model.save_pretrained(str(directory))
        self.tokenizer.save_pretrained(str(directory))
