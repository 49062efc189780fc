"""Adapters on disk: what peft and other trainers write, read as they mean it or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selfplay.config import TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.lora import adapter_rank, add_lora, load_adapter, merge_adapter, save_adapter
from selfplay.learner.trainer import Trainer

from .test_trainer import CONFIG, logits_of, step_samples
from .tiny import tiny_model


def test_stored_adapter_is_what_peft_merges(tmp_path: Path) -> None:
    from peft import PeftModel

    trainer = Trainer(tiny_model(), CONFIG)
    trainer.step(step_samples())
    save_adapter(trainer.model, tmp_path / "adapter", base_name="tiny")
    peft_logits = logits_of(PeftModel.from_pretrained(tiny_model(), str(tmp_path / "adapter")))
    ours = tiny_model()
    merge_adapter(ours, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(ours), peft_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits_of(trainer.model), peft_logits, rtol=5e-2, atol=5e-2)
    other = Trainer(tiny_model(), CONFIG)
    load_adapter(other.model, tmp_path / "adapter")
    torch.testing.assert_close(logits_of(other.model), peft_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("words", [{"use_rslora": True}, {"init_lora_weights": "gaussian"}])
def test_an_adapter_of_peft_counts_as_peft_says(tmp_path: Path, words: dict[str, Any]) -> None:
    """Rank-stabilized factors count alpha / sqrt(rank): read as alpha / rank they are too weak."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = tiny_model()
    linear = [n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)]
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear} - {"lm_head"})
    made = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=targets, **words))
    for name, weight in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    made.save_pretrained(str(tmp_path))
    merged, trained = tiny_model(), tiny_model()
    merge_adapter(merged, tmp_path)
    add_lora(trained, *adapter_rank(tmp_path))
    load_adapter(trained, tmp_path)
    for ours in (merged, trained):
        torch.testing.assert_close(logits_of(ours), logits_of(made), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits_of(made), logits_of(tiny_model()), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "words",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"alpha_pattern": {"q_proj": 3}},
     {"rank_pattern": {"q_proj": 1}}, {"init_lora_weights": "pissa_niter_4"},
     {"init_lora_weights": "OLoRA"}, {"alora_invocation_tokens": [5, 6]}, {"bias": "lora_only"},
     {"peft_type": "ADALORA"}, {"trainable_token_indices": [3]}],
)  # fmt: skip
def test_an_adapter_whose_factors_do_not_say_all_is_refused(
    tmp_path: Path, words: dict[str, Any]
) -> None:
    save_adapter(Trainer(tiny_model(), CONFIG).model, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **words}))
    with pytest.raises(UserError, match=rf"{next(iter(words))}=.*policy\.model"):
        merge_adapter(tiny_model(), tmp_path)


def adapter_of_peft(directory: Path, targets: list[str], **words: Any) -> Any:
    """Saved by peft, factors that matter; the adapted model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    made = get_peft_model(tiny_model(), LoraConfig(r=3, target_modules=targets, **words))
    for name, weight in made.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(weight, std=0.2)
    made.save_pretrained(str(directory))
    return made


def load_trained(directory: Path) -> Any:
    model = tiny_model()
    add_lora(model, *adapter_rank(directory))
    load_adapter(model, directory)
    return model


def load_merged(directory: Path) -> Any:
    model = tiny_model()
    merge_adapter(model, directory)
    return model


LOADERS = (load_trained, load_merged)


@pytest.mark.parametrize("words", [{}, {"layers_to_transform": [1]}])
def test_an_adapter_of_some_layers_leaves_the_others(tmp_path: Path, words: dict[str, Any]) -> None:
    """q and v alone are peft's own default; they were said to belong to another model."""
    made = adapter_of_peft(tmp_path, ["q_proj", "v_proj"], **words)
    want = logits_of(made)
    for load in LOADERS:
        torch.testing.assert_close(logits_of(load(tmp_path)), want, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(want, logits_of(tiny_model()), rtol=1e-2, atol=1e-2)
    trainer = Trainer(tiny_model(), CONFIG)
    trainer.step(step_samples())
    load_adapter(trainer.model, tmp_path)  # nothing of what was trained before stays
    torch.testing.assert_close(logits_of(trainer.model), want, rtol=1e-4, atol=1e-4)


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    file = str(directory / "adapter_model.safetensors")
    save_file({k: t.contiguous() for k, t in change(load_file(file)).items()}, file)


@pytest.mark.parametrize("load", LOADERS)
def test_names_that_trainers_write_by_themselves(tmp_path: Path, load: Any) -> None:
    """peft's name of the adapter left in, its prefix left out (AReaL pull request 1579)."""
    want = logits_of(adapter_of_peft(tmp_path, ["q_proj", "down_proj"]))
    strip = len("base_model.model.")
    rewrite(
        tmp_path,
        lambda t: {k[strip:].replace(".weight", ".default.weight"): x for k, x in t.items()},
    )
    torch.testing.assert_close(logits_of(load(tmp_path)), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("load", LOADERS)
def test_an_adapter_of_the_head_is_not_merged_into_the_embedding(tmp_path: Path, load: Any) -> None:
    """They are one weight in a tied model: both would change (peft issue 2018)."""
    adapter_of_peft(tmp_path / "head", ["q_proj", "lm_head"])
    rewrite(tmp_path / "head", lambda t: {k: x for k, x in t.items() if ".lora_" in k})
    with pytest.raises(UserError, match=r"adapts lm_head.*policy\.model"):
        load(tmp_path / "head")
    adapter_of_peft(tmp_path / "embedding", ["q_proj", "embed_tokens"])
    with pytest.raises(UserError, match=r"embed_tokens\S+ is no factor of a linear layer"):
        load(tmp_path / "embedding")


@pytest.mark.parametrize("load", LOADERS)
def test_an_adapter_that_would_change_nothing_or_too_little_is_refused(
    tmp_path: Path, load: Any
) -> None:
    """No layer of the model has its names (vLLM issues 34186 and 55193), layers or factors lack,
    or they count nothing (verl issue 6380)."""
    adapter_of_peft(tmp_path, ["q_proj", "v_proj"])
    whole = (tmp_path / "adapter_model.safetensors").read_bytes()
    for change, said in (
        (lambda t: {k.replace("model.layers", "model.text.layers"): x for k, x in t.items()},
         "q_proj .*are no linear layers of the model, which has model.layers.0.self_attn.q_proj"),
        (lambda t: {k: x for k, x in t.items() if "layers.1." not in k},
         "layers.1.self_attn.q_proj .*missing, which target_modules"),
        (lambda t: {k: x for k, x in t.items() if "1.self_attn.q_proj.lora_B" not in k},
         "layers.1.self_attn.q_proj.lora_B is missing; the file is incomplete"),
        (lambda t: {}, "no factors"),
    ):  # fmt: skip
        (tmp_path / "adapter_model.safetensors").write_bytes(whole)
        rewrite(tmp_path, change)
        with pytest.raises(UserError, match=said):
            load(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(whole)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 0}))
    with pytest.raises(UserError, match="lora_alpha=0 give the factors no effect"):
        load(tmp_path)


def test_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_adapter(Trainer(tiny_model(), CONFIG).model, tmp_path)
    wider = Trainer(tiny_model(), TrainerConfig(lora_rank=4))
    with pytest.raises(UserError, match="lora_rank=3"):
        load_adapter(wider.model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 5}))
    with pytest.raises(UserError, match="another model"):
        merge_adapter(tiny_model(), tmp_path)
    with pytest.raises(UserError, match="not a LoRA adapter"):
        merge_adapter(tiny_model(), tmp_path / "nowhere")
