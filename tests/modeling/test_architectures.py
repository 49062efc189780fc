"""Other architectures: what is sampled, scored and learned is what their own code says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from selfplay.config import TrainerConfig
from selfplay.errors import UserError
from selfplay.learner.lora import add_lora, lora_layers
from selfplay.learner.measures.memory import ModelShape
from selfplay.learner.packing import pack
from selfplay.learner.publish import save_hf
from selfplay.learner.scoring import row_scores
from selfplay.learner.trainer import Trainer
from selfplay.modeling.fit import fit_of, row_limit, use_plans
from selfplay.modeling.model_files import load_model
from selfplay.policy.static_decoding import StaticSampler
from selfplay.policy.transformers import TransformersPolicy
from selfplay.sampling import SampleRequest, ScoreRequest
from selfplay.types import TrainingSample

from .architectures import ALONE, SHARED, VOCABULARY, reading_images, tiny, untouched


class Ids:
    """A tokenizer for policies that are asked in ids."""

    end_of_turn_id = 2

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(token_ids)


KINDS = {**SHARED, **ALONE}
PROMPT = 9


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost such small models more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sequences() -> list[tuple[int, ...]]:
    """Of 20 to 24 tokens; the first 11 are those of the first, too."""
    torch.manual_seed(1)
    drawn = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in (20, 20, 24)]
    return [tuple(drawn[0][:11] + ids[11:]) for ids in drawn]


def _sample(ids: tuple[int, ...]) -> TrainingSample:
    return TrainingSample(
        token_ids=ids,
        loss_mask=(0,) * PROMPT + (1,) * (len(ids) - PROMPT),
        logprobs=(-1.0,) * len(ids),
        advantages=(1.0,) * len(ids),
        policy_version=0,
    )


def own_logprobs(model: Any, ids: tuple[int, ...], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of each token after the prompt, by the model's own code."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float() / temperature
    return torch.log_softmax(logits, dim=-1)[PROMPT - 1 : -1]


@pytest.mark.parametrize("name", KINDS)
def test_what_is_sampled_and_scored_is_what_the_model_says(name: str) -> None:
    kind, settings = KINDS[name]
    model = tiny(kind, **settings)
    own = untouched(model)
    policy = TransformersPolicy(model, cast(Any, Ids()))
    assert fit_of(model).shares == (name in SHARED), fit_of(model).why
    asked = [
        SampleRequest(
            prompt_ids=ids[:PROMPT], num_samples=3, max_new_tokens=12, temperature=0.7, seed=number
        )
        for number, ids in enumerate(sequences())
    ]
    with torch.no_grad():
        for request, answers in zip(asked, policy.sample(asked), strict=True):
            for answer in answers:
                ids = request.prompt_ids + answer.token_ids
                said = own_logprobs(own, ids, 0.7)
                want = said.gather(1, torch.tensor(answer.token_ids).unsqueeze(1))[:, 0]
                torch.testing.assert_close(torch.tensor(answer.logprobs), want, atol=2e-3, rtol=0)
        given = [
            ScoreRequest(prompt_ids=ids[:PROMPT], answer_ids=ids[PROMPT:], temperature=1.0)
            for ids in sequences()
        ]
        for score, found in zip(given, policy.score(given), strict=True):
            said = own_logprobs(own, score.prompt_ids + score.answer_ids)
            want = said.gather(1, torch.tensor(score.answer_ids).unsqueeze(1))[:, 0]
            torch.testing.assert_close(torch.tensor(found), want, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_are_those_of_the_model_itself(name: str) -> None:
    kind, settings = KINDS[name]
    model = tiny(kind, **settings)
    own = untouched(model)
    use_plans(model)
    samples = [_sample(ids) for ids in sequences()]
    for batch in pack(samples, max_tokens=row_limit(model, 4096)):
        logprobs, entropy = row_scores(model, batch)
        (logprobs.sum() + 0.3 * entropy.sum()).backward()  # type: ignore[no-untyped-call]
    for ids in sequences():
        said = own_logprobs(own, ids)
        chosen = said.gather(1, torch.tensor(ids[PROMPT:]).unsqueeze(1)).sum()
        (chosen - 0.3 * (said.exp() * said).sum()).backward()  # type: ignore[no-untyped-call]
    wanted = {key: weight.grad for key, weight in own.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in wanted.values() if grad is not None)
    for key, weight in model.named_parameters():
        want = wanted[key]
        got = torch.zeros_like(weight) if weight.grad is None else weight.grad
        want = torch.zeros_like(weight) if want is None else want
        assert torch.allclose(got, want, atol=1e-4 * largest, rtol=1e-3), key


@pytest.mark.parametrize("name", ["windows, capped scores and logits", "linear attention between"])
def test_in_bf16_the_way_is_the_same(name: str) -> None:
    kind, settings = KINDS[name]
    fit = use_plans(tiny(kind, torch.bfloat16, **settings))
    assert fit.shares == (name in SHARED)


def test_a_window_that_is_never_reached_costs_nothing() -> None:
    kind, settings = KINDS["a window"]
    fit = use_plans(tiny(kind, **settings))
    assert fit.is_plain(6) and not fit.is_plain(7)


@pytest.mark.parametrize("window", [6, 64])
def test_a_gpus_sampler_is_used_as_far_as_no_window_hides_anything(window: int) -> None:
    model = tiny("mistral", sliding_window=window)
    policy = TransformersPolicy(model, cast(Any, Ids()))
    policy._static = StaticSampler(model, Ids.end_of_turn_id)
    request = SampleRequest(prompt_ids=sequences()[0][:PROMPT], max_new_tokens=12, temperature=1.0)
    answer = policy.sample([request])[0][0]
    assert bool(policy._static._states) == (window == 64)
    with torch.no_grad():
        said = own_logprobs(untouched(model), request.prompt_ids + answer.token_ids)
    want = said.gather(1, torch.tensor(answer.token_ids).unsqueeze(1))[:, 0]
    torch.testing.assert_close(torch.tensor(answer.logprobs), want, atol=2e-3, rtol=0)


def test_a_model_that_reads_images_is_played_with_as_the_language_model_inside(
    tmp_path: Path,
) -> None:
    model = reading_images()
    ids = torch.tensor([sequences()[0]])
    with torch.no_grad():
        want = model(input_ids=ids).logits
    model.save_pretrained(str(tmp_path / "m"))
    loaded = load_model(tmp_path / "m", dtype=torch.float32)
    assert use_plans(loaded).shares
    add_lora(loaded, 2, 4.0)
    assert not any("visual" in name for name, _ in lora_layers(loaded))
    save_hf(loaded, None, tmp_path / "again")
    with torch.no_grad():
        got = load_model(tmp_path / "again", dtype=torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(got, want)


def test_what_is_no_language_model_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="knows no language model of the type 'vit'") as error:
        load_model(tmp_path)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("kind", ["mamba", "gemma3_text", "gpt2"])
def test_the_memory_estimate_reads_any_architecture(kind: str) -> None:
    shape = ModelShape.of(tiny(kind))
    assert min(shape.hidden, shape.feed_forward, shape.heads, shape.head_size) > 0


def test_an_adapter_needs_linear_layers() -> None:
    with pytest.raises(UserError, match=r"learner\.lora_rank=0"):
        add_lora(tiny("gpt2"), 2, 4.0)


def test_where_prefixes_are_not_shared_a_step_learns_the_same() -> None:
    kind, settings = KINDS["linear attention between"]
    model = tiny(kind, **settings)
    trainer = Trainer(model, TrainerConfig(lora_rank=2, learning_rate=1e-2))
    before = {name: layer.weight.clone() for name, layer in lora_layers(model)}
    assert trainer.step([_sample(ids) for ids in sequences()])["num_micro_batches"] == 3
    assert all(not torch.equal(layer.weight, before[n]) for n, layer in lora_layers(model))


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="depends on tokens after it"):
        use_plans(tiny("bert", is_decoder=False))


def test_logits_that_nobody_knows_are_refused() -> None:
    model = tiny("llama")
    plain = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits**3
        return output

    model.forward = forward
    with pytest.raises(UserError, match="not those of its output head"):
        use_plans(model)


def test_weights_that_are_not_finite_are_told_at_the_start() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        use_plans(model)
