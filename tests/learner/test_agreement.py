"""Before a run trains on what servers sample: do they sample from its weights?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selfplay.errors import UserError
from selfplay.learner.lora import add_lora, lora_layers
from selfplay.learner.measures.agreement import MAX_KL, check_agreement
from selfplay.modeling.model_files import load_model
from selfplay.policy.transformers import HFTokenizer, TransformersPolicy

from .tiny import TinyChatModel


def test_an_engine_of_other_weights_is_refused(tmp_path: Path) -> None:
    """One that has the model without its adapter, as vLLM where no name of it fits (its issues
    34186 and 55193): what it samples was trained on as if it were the learner's."""
    made = TinyChatModel()
    with torch.no_grad():
        made.model.lm_head.weight.mul_(20.0)  # a model that is sure of what it says
    made.save_to(tmp_path)
    bare, trained = load_model(tmp_path), load_model(tmp_path)
    add_lora(trained, 2, 2.0)
    torch.manual_seed(0)
    for _, layer in lora_layers(trained):
        torch.nn.init.normal_(layer.lora_B, std=3.0)
        layer.merge()
    tokenizer = HFTokenizer.load(tmp_path)
    same = check_agreement(TransformersPolicy(trained, tokenizer), trained, "remedy")
    assert same.num_tokens > 20 and same.kl < MAX_KL / 2
    with pytest.raises(UserError, match=r"other weights than are trained: KL .*; start it anew"):
        check_agreement(TransformersPolicy(bare, tokenizer), trained, "start it anew")
