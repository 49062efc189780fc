"""Decoding by transformers' own `generate`, for models whose prefixes cannot be shared.

Such a model keeps what its own code keeps (recurrent states, convolutions, keys), so the answers of
one prompt are drawn side by side, all of one length so far: no padding, which not every such model
ignores. `generate` moves the model on; what is drawn, and where an answer ends, is decided here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch

from selfplay.errors import PolicyError
from selfplay.modeling.devices import device_of
from selfplay.modeling.fit import are_alike
from selfplay.policy.sampling import Asked, draw_tokens
from selfplay.policy.scoring import answer_logprobs
from selfplay.sampling import SampleRequest, ScoreRequest

log = logging.getLogger(__name__)

_TRIED = 4
"""Tokens that are drawn to see whether what a model keeps between steps is right."""


class PlainSampler:
    """Draws batches of answers, prompt by prompt.

    What a model keeps between steps is tried once: where an answer's log-probabilities are not
    those of the whole sequence run at once, or `generate` cannot keep anything, nothing is kept.
    """

    def __init__(self, model: Any, end_of_turn_id: int) -> None:
        self._model = model
        self._end = end_of_turn_id
        self._keeps: bool | None = None

    def sample(
        self,
        prompts: Sequence[tuple[int, ...]],
        num_rows: Sequence[int],
        asked: Sequence[SampleRequest],
        seed: int,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities [row][step] of rows numbered prompt by prompt; what follows
        a row's end of turn or limit means nothing. `asked`: the request of each row."""
        if self._keeps is None:
            self._keeps = self._keeps_right(prompts[0])
        generator = torch.Generator().manual_seed(seed)
        tokens: list[list[int]] = []
        logprobs: list[list[float]] = []
        first = 0
        for prompt, num in zip(prompts, num_rows, strict=True):
            draw = _Draw(asked[first : first + num], self._end, generator, device_of(self._model))
            self._generate(prompt, draw, self._keeps)
            tokens += torch.stack(draw.tokens, dim=1).tolist()
            logprobs += torch.stack(draw.logprobs, dim=1).tolist()
            first += num
        return tokens, logprobs

    def _generate(self, prompt: tuple[int, ...], draw: _Draw, keeps: bool) -> None:
        from transformers import GenerationConfig

        model = self._model
        ids = torch.tensor([prompt] * draw.num_rows, device=device_of(model))
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=draw.max_steps, do_sample=False, use_cache=keeps, pad_token_id=0
        )
        kept = model.generation_config
        model.generation_config = config  # what its makers set there changes what is drawn
        try:
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                logits_processor=[draw],
                stopping_criteria=[draw.ended],
            )
        finally:
            model.generation_config = kept

    def _keeps_right(self, prompt: tuple[int, ...]) -> bool:
        """Whether an answer's log-probabilities, drawn step by step, are those of one pass."""
        request = SampleRequest(prompt_ids=prompt, max_new_tokens=_TRIED, temperature=1.0, seed=0)
        device = device_of(self._model)
        draw = _Draw([request] * 2, -1, torch.Generator().manual_seed(0), device)
        try:
            self._generate(prompt, draw, keeps=True)
        except Exception as error:  # whatever a model's own code can raise
            log.warning("%s: every step runs the whole answer again (%s)", self._name, error)
            return False
        asked = [
            ScoreRequest(prompt_ids=prompt, answer_ids=tuple(answer), temperature=1.0)
            for answer in torch.stack(draw.tokens, dim=1).tolist()
        ]
        told = torch.tensor(answer_logprobs(self._model, asked))
        drawn = torch.stack(draw.logprobs, dim=1).cpu()
        if are_alike(self._model, drawn, told):
            return True
        log.warning(
            "%s: what it keeps between steps changes its answers; each step runs all again",
            self._name,
        )
        return False

    @property
    def _name(self) -> str:
        return type(self._model).__name__


class _Draw:
    """Draws each row's next token; everything else becomes impossible."""

    def __init__(
        self,
        asked: Sequence[SampleRequest],
        end_of_turn_id: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.max_steps = max(request.max_new_tokens for request in asked)
        self.num_rows = len(asked)
        self._generator = generator
        self._asked = Asked.of(asked, end_of_turn_id, device)
        self._over = torch.zeros(len(asked), dtype=torch.bool, device=device)
        self.tokens: list[torch.Tensor] = []
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [rows, vocabulary] in which the drawn tokens alone are possible."""
        asked = self._asked
        drawn, logprob = draw_tokens(scores, asked.temperature, asked.top_p, self._generator)
        if not bool(torch.isfinite(logprob[~self._over]).all()):
            raise PolicyError("the model's logits are not finite; are the weights sound?")
        self.tokens.append(drawn)
        self.logprobs.append(logprob)
        self._over = self._over | (drawn == asked.end) | (len(self.tokens) >= asked.limit)
        chosen = torch.full_like(scores, float("-inf"))
        return chosen.scatter_(1, drawn.unsqueeze(1), 0.0)

    def ended(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows have ended, bool [rows]."""
        return self._over
