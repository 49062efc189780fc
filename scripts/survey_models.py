#!/usr/bin/env python3
"""Every causal language model that transformers knows, as a tiny random one: is what we sample,
score and learn what its own code says?

    python scripts/survey_models.py [KIND ...] [--log DONE.jsonl]

Each is made from its default configuration with small numbers, windows of 8 tokens and sequences of
24 to 30, in fp32. A kind whose default does not allow that, or that takes longer than --timeout-s,
is left out and named. One row a kind, and at the end how many there are of each verdict: shared or
alone (right, `docs/learner.md` tells the two ways), wrong, refused, fails, left out. With --log,
kinds that are there already are not run again.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from selfplay.errors import PolicyError, UserError
from selfplay.files import append_json_lines, read_json_lines
from selfplay.learner.packing import pack
from selfplay.learner.scoring import row_scores
from selfplay.modeling.fit import fit_of, row_limit
from selfplay.policy.transformers import TransformersPolicy
from selfplay.sampling import SampleRequest, ScoreRequest
from selfplay.types import TrainingSample

VOCABULARY, WIDTH, PROMPT, END = 128, 64, 12, 2
CLOSE = 2e-3
"""Largest difference of log-probabilities in nats, and of gradients as a share of the largest."""
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "conv_dim"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "d_ff"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 256),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_key_value_heads"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "head_dim"), 16),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "index_n_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), 16),
    **dict.fromkeys(("state_size", "mamba_d_state", "hidden_size_per_layer_input"), 16),
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "index_topk": 4, "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1,
    "mamba_chunk_size": 16, "mamba_d_ssm": WIDTH, "num_kv_shared_layers": 0, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": END,
}  # fmt: skip


class Ids:
    """A tokenizer for a policy that is asked in ids."""

    end_of_turn_id = END

    def decode(self, token_ids: Any) -> str:
        return ""


class Late(BaseException):
    """The time for one kind is over."""


def make(kind: str) -> Any:
    """A tiny random model of a `model_type`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    default = AutoConfig.for_model(kind).get_text_config()
    given = default.to_dict()
    small: dict[str, Any] = {
        key: value
        for key, value in SMALL.items()
        if given.get(key) is not None and not isinstance(given[key], list | dict)
    }
    kinds = list(dict.fromkeys(given.get("layer_types") or ()))
    if kinds:  # each kind of layer at least once
        small["layer_types"] = (kinds * 4)[:4]
    config = type(default)(**small)
    if hasattr(config, "qk_rope_head_dim"):
        config.num_key_value_heads, config.head_dim = config.num_attention_heads, 8
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.08)
    return model


def said(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    """Log-probabilities [tokens after the prompt, vocabulary], by the model's own code."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    return torch.log_softmax(logits, dim=-1)[PROMPT - 1 : -1]


def chosen(logprobs: torch.Tensor, ids: tuple[int, ...]) -> torch.Tensor:
    return logprobs.gather(1, torch.tensor(ids[PROMPT:]).unsqueeze(1))[:, 0]


def compare(model: Any, row: dict[str, Any]) -> None:
    """Fill `row`: how it is computed, and the largest differences."""
    own = copy.deepcopy(model)
    drawn = [torch.randint(3, 120, (length,)).tolist() for length in (24, 24, 30)]
    texts = [tuple(drawn[0][:15] + ids[15:]) for ids in drawn]
    with torch.no_grad():
        row["own"] = sum(float(chosen(said(own, ids), ids).sum()) for ids in texts)
    policy = TransformersPolicy(model, Ids())  # type: ignore[arg-type]
    fit = fit_of(model)
    row["way"] = "shared" if fit.shares else f"alone: {fit.why}"
    scores = [ScoreRequest(prompt_ids=t[:PROMPT], answer_ids=t[PROMPT:]) for t in texts]
    with torch.no_grad():
        gaps = [
            (torch.tensor(got) - chosen(said(own, ids), ids)).abs().max()
            for got, ids in zip(policy.score(scores), texts, strict=True)
        ]
        row["score"] = float(max(gaps))
        request = SampleRequest(prompt_ids=texts[0][:PROMPT], num_samples=3, max_new_tokens=16)
        gaps = []
        for answer in policy.sample([request])[0]:
            ids = request.prompt_ids + answer.token_ids
            gaps.append((torch.tensor(answer.logprobs) - chosen(said(own, ids), ids)).abs().max())
        row["sample"] = float(max(gaps))
    row["gradient"] = gradient_gap(model, own, texts)


def gradient_gap(model: Any, own: Any, texts: list[tuple[int, ...]]) -> float:
    """The largest difference of a gradient, as a share of the largest gradient."""
    samples = [
        TrainingSample(
            token_ids=ids,
            loss_mask=(0,) * PROMPT + (1,) * (len(ids) - PROMPT),
            logprobs=(0.0,) * len(ids),
            advantages=(1.0,) * len(ids),
            policy_version=0,
        )
        for ids in texts
    ]
    for batch in pack(samples, max_tokens=row_limit(model, 4096)):
        row_scores(model, batch)[0].sum().backward()  # type: ignore[no-untyped-call]
    for ids in texts:
        chosen(said(own, ids), ids).sum().backward()  # type: ignore[no-untyped-call]
    wanted = {name: weight.grad for name, weight in own.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in wanted.values() if grad is not None)
    gap = 0.0
    for name, weight in model.named_parameters():
        got, want = weight.grad, wanted[name]
        if got is not None or want is not None:
            zero = torch.zeros_like(weight)
            difference = (zero if got is None else got) - (zero if want is None else want)
            gap = max(gap, float(difference.abs().max()))
    return gap / largest


def survey(kind: str) -> dict[str, Any]:
    """The row of one kind; its `verdict` says what came out."""
    row: dict[str, Any] = {"kind": kind}
    try:
        model = make(kind)
    except Exception as error:
        return row | {"verdict": "left out", "why": f"cannot be made small: {_told(error)}"}
    try:
        compare(model, row)
    except UserError as error:
        return row | {"verdict": "refused", "why": _told(error)}
    except PolicyError as error:
        return row | {"verdict": "fails", "why": _told(error)}
    except Exception as error:
        verdict = "fails" if "own" in row else "left out"
        return row | {"verdict": verdict, "why": f"{type(error).__name__}: {_told(error)}"}
    right = max(row["score"], row["sample"], row["gradient"]) <= CLOSE
    return row | {"verdict": row["way"].partition(":")[0] if right else "wrong"}


def _told(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def main() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kinds", nargs="*", help="model types (default: all)")
    parser.add_argument("--log", type=Path, help="rows are added to this file")
    parser.add_argument("--timeout-s", type=int, default=60, help="for one kind (default: 60)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    log: Path | None = arguments.log
    rows = [row for _, row in read_json_lines(log)] if log else []
    done = {row["kind"] for row in rows}

    def late(*_: Any) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    for kind in arguments.kinds or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        if kind in done:
            continue
        signal.alarm(arguments.timeout_s)
        try:
            row = survey(kind)
        except Late:
            row = {"kind": kind, "verdict": "left out", "why": f"{arguments.timeout_s} s are over"}
        finally:
            signal.alarm(0)
        rows.append(row)
        print(json.dumps(row), flush=True)
        if log:
            append_json_lines(log, [row])
    print(json.dumps(Counter(row["verdict"] for row in rows)))


if __name__ == "__main__":
    main()
