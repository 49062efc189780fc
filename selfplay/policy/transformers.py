"""In-process inference on a transformers model: the same weights that the learner trains."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selfplay.agent.renderer import TemplateRenderer
from selfplay.agent.template import ChatTemplate
from selfplay.errors import PolicyError, UserError
from selfplay.modeling.attention import hidden_states
from selfplay.modeling.devices import device_of, memory_boundary
from selfplay.modeling.fit import fit_of, use_plans
from selfplay.policy.decoding import prefill
from selfplay.policy.plain_decoding import PlainSampler
from selfplay.policy.sampling import Asked, draw_tokens
from selfplay.policy.scoring import answer_logprobs
from selfplay.policy.static_decoding import StaticSampler
from selfplay.sampling import SampleRequest, ScoreRequest, Tokenizer, end_of
from selfplay.thinking import MARKS
from selfplay.types import Completion

log = logging.getLogger(__name__)

_MAX_GROUP_ROWS = 16


class HFTokenizer:
    """A transformers tokenizer with a chat template; text never turns into special tokens.

    `end_of_turn`: the token's text, where the template has it; else found in the template.
    """

    def __init__(self, tokenizer: Any, end_of_turn: str = "<|im_end|>") -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer)
        self._encoder = self._template.encoder
        self._special = set(tokenizer.all_special_tokens)
        self._keeps_marks = bool(self._special & MARKS)
        chat = self._template.chat("system probe", "user probe")
        shown = self._template.text(chat)
        token: str | None = end_of_turn
        if end_of_turn not in shown or end_of_turn not in tokenizer.get_vocab():
            token = self._template.end_of_answer(chat)
        if token is None or "system probe" not in shown or "user probe" not in shown:
            raise UserError(
                f"{tokenizer.name_or_path}: its chat template drops what is said or ends no turn "
                "with a special token; use another instruction-tuned model"
            )
        self.end_of_turn_id: int = self._template.id_of(token)

    @classmethod
    def load(cls, directory: Path) -> HFTokenizer:
        """Read the tokenizer of a model directory."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(str(directory)))

    def chat(self, *, tools: bool = True) -> TemplateRenderer:
        """The same template for chats of several turns, with tools or of texts alone."""
        end = None if tools else str(self._tokenizer.convert_ids_to_tokens(self.end_of_turn_id))
        return TemplateRenderer(self._tokenizer, end, encoder=self._encoder, with_tools=tools)

    def render(self, system: str, user: str) -> tuple[int, ...]:
        """Ids of the conversation up to where the answer begins."""
        if any(token in system or token in user for token in self._special):
            return self._render_apart(system, user)
        return self._encoder.markup(self._template.text(self._template.chat(system, user)))

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of plain text; spellings of special tokens stay plain text."""
        return self._encoder.plain(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of sampled ids without special tokens, but for those that part thinking from it."""
        if self._keeps_marks:
            tokens = self._tokenizer.convert_ids_to_tokens(list(token_ids))
            pairs = zip(token_ids, tokens, strict=True)
            ids = [i for i, token in pairs if token in MARKS or token not in self._special]
            return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        text = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def _render_apart(self, system: str, user: str) -> tuple[int, ...]:
        """The messages contain spellings of special tokens: encode them apart from the template."""
        marks = {"\x00system\x00": system, "\x00user\x00": user}
        rest = self._template.text(self._template.chat(*marks))
        ids: list[int] = []
        for mark, content in marks.items():
            before, rest = rest.split(mark, 1)
            ids.extend(self._encoder.markup(before))
            ids.extend(self._encoder.plain(content))
        ids.extend(self._encoder.markup(rest))
        return tuple(ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One answer to draw: sample `sample` of request `request`."""

    request: int
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Rows that continue one prompt."""

    prompt: tuple[int, ...]
    rows: tuple[_Row, ...]
    max_steps: int


class TransformersPolicy:
    """Batched sampling; answers are reproducible for equal calls on equal weights.

    `batch_tokens` bounds the columns of keys and values that are held at a time (46 kB each for
    SmolLM2-135M in bf16); None: what suits the device. On a GPU steps are recorded
    (`static_decoding.py`).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        version: int = 0,
        batch_tokens: int | None = None,
    ) -> None:
        self._fit = use_plans(model)
        self.model = model
        self.tokenizer: Tokenizer = tokenizer
        self.version = version
        self._batch_tokens = batch_tokens or default_batch_tokens(model)
        end = tokenizer.end_of_turn_id
        self._plain = None if self._fit.shares else PlainSampler(model, end)
        self._static: StaticSampler | None = None
        if device_of(model).type != "cpu" and self._fit.is_plain(1):
            self._static = StaticSampler(model, end)

    @torch.inference_mode()
    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """Answers in the order of `requests`; errors of the engine become `PolicyError`."""
        answers: dict[_Row, Completion] = {}
        training = self.model.training
        self.model.eval()
        try:
            with memory_boundary("sampling", "lower policy.batch_tokens"):
                for batch in make_batches(requests, self._batch_tokens):
                    answers.update(self._run(requests, batch))
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise PolicyError(f"sampling failed: {type(error).__name__}: {error}") from error
        finally:
            self.model.train(training)
        return [
            [answers[_Row(request=index, sample=sample)] for sample in range(request.num_samples)]
            for index, request in enumerate(requests)
        ]

    def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
        """See `ScoringPolicy.score`; errors of the engine become `PolicyError`."""
        training = self.model.training
        self.model.eval()
        try:
            with memory_boundary("scoring", "lower policy.batch_tokens"):
                return answer_logprobs(self.model, requests, self._batch_tokens)
        except (RuntimeError, ValueError, IndexError, MemoryError) as error:
            raise PolicyError(f"scoring failed: {type(error).__name__}: {error}") from error
        finally:
            self.model.train(training)

    def _run(
        self, requests: Sequence[SampleRequest], batch: list[_Group]
    ) -> dict[_Row, Completion]:
        rows = [row for group in batch for row in group.rows]
        asked = [requests[row.request] for row in rows]
        prompts, num_rows = [group.prompt for group in batch], [len(g.rows) for g in batch]
        tokens, logprobs = self._drawn(prompts, num_rows, asked, _batch_seed(asked, rows))
        return {
            row: self._completion(request, ids, values)
            for row, ids, values, request in zip(rows, tokens, logprobs, asked, strict=True)
        }

    def _drawn(
        self,
        prompts: Sequence[tuple[int, ...]],
        num_rows: Sequence[int],
        asked: Sequence[SampleRequest],
        seed: int,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities [row][step], the way that the model allows."""
        if self._plain is not None:
            return self._plain.sample(prompts, num_rows, asked, seed)
        longest = max(map(len, prompts)) + max(request.max_new_tokens for request in asked)
        if self._static is not None and self._fit.is_plain(longest):
            return self._static.sample(prompts, num_rows, asked, seed)
        return self._decode(prompts, num_rows, asked, seed)

    def _decode(
        self,
        prompts: Sequence[tuple[int, ...]],
        num_rows: Sequence[int],
        asked: Sequence[SampleRequest],
        seed: int,
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Tokens and log-probabilities [row][step]; rows that have ended leave the batch."""
        generator = torch.Generator().manual_seed(seed)
        device = device_of(self.model)
        wanted = Asked.of(asked, self.tokenizer.end_of_turn_id, device)
        length = torch.tensor([len(request.prompt_ids) for request in asked], device=device)
        max_steps = max(request.max_new_tokens for request in asked)
        plan, states = prefill(self.model, prompts, num_rows, max_steps)
        tokens = torch.zeros(len(asked), max_steps, dtype=torch.long, device=device)
        logprobs = torch.zeros(len(asked), max_steps, device=device)
        active = torch.arange(len(asked), device=device)
        head = self._fit.head
        for step in range(max_steps):
            logits = head.of(self.model, states)
            drawn, logprob = draw_tokens(
                logits, wanted.temperature[active], wanted.top_p[active], generator
            )
            if not bool(torch.isfinite(logprob).all()):
                raise PolicyError("the model's logits are not finite; are the weights sound?")
            tokens[active, step], logprobs[active, step] = drawn, logprob
            alive = (drawn != wanted.end[active]) & (wanted.limit[active] > step + 1)
            if not bool(alive.any()):
                break
            if not bool(alive.all()):
                active, drawn = active[alive], drawn[alive]
                plan = plan.keep_rows(alive)
            positions = (length[active] + step).unsqueeze(1)
            states = hidden_states(self.model, drawn.unsqueeze(1), positions, plan)[:, 0]
            plan.step += 1
        return tokens.tolist(), logprobs.tolist()

    def _completion(
        self, request: SampleRequest, tokens: list[int], logprobs: list[float]
    ) -> Completion:
        end = end_of(request, self.tokenizer.end_of_turn_id)
        ids = tokens[: request.max_new_tokens]
        stopped = end in ids
        num = ids.index(end) + 1 if stopped else request.max_new_tokens
        return Completion(
            token_ids=tuple(ids[:num]),
            logprobs=tuple(logprobs[:num]),
            text=self.tokenizer.decode(ids[: num - 1] if stopped else ids[:num]),
            finish_reason="stop" if stopped else "length",
            policy_version=self.version,
        )


def default_batch_tokens(model: Any) -> int:
    """On a CPU 24,000 columns; on a GPU what a quarter of its free memory holds, at most 8 GiB."""
    device = device_of(model)
    shapes = fit_of(model).shapes
    if device.type != "cuda" or not shapes:
        return 24_000
    width = next(model.parameters()).element_size()
    column = 2 * width * sum(key_heads * size for _, key_heads, size in shapes)
    room = min(8 * 2**30, torch.cuda.mem_get_info(device)[0] // 4)
    return max(24_000, int(room // column))


def make_batches(requests: Sequence[SampleRequest], batch_tokens: int) -> Iterator[list[_Group]]:
    """Group rows by prompt, order prompts by length, cut where the buffers would grow too large."""
    for request in requests:
        if not request.prompt_ids or request.max_new_tokens < 1:
            raise PolicyError("a request needs a prompt and max_new_tokens >= 1")
    by_prompt: dict[tuple[int, ...], list[_Row]] = {}
    for index, request in enumerate(requests):
        rows = by_prompt.setdefault(request.prompt_ids, [])
        rows.extend(_Row(request=index, sample=sample) for sample in range(request.num_samples))
    groups = [
        _Group(
            prompt=prompt,
            rows=tuple(part),
            max_steps=max(requests[row.request].max_new_tokens for row in part),
        )
        for prompt, rows in by_prompt.items()
        for part in _parts(rows, _MAX_GROUP_ROWS)
    ]
    groups.sort(key=lambda group: (len(group.prompt), group.prompt))
    batch: list[_Group] = []
    for group in groups:
        if batch and _columns([*batch, group]) > batch_tokens:
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _columns(batch: list[_Group]) -> int:
    """Columns of keys and values that a batch holds (see `decoding.py`)."""
    width = max(len(group.prompt) for group in batch)
    cells = max(len(group.rows) for group in batch)
    return len(batch) * (width + cells * max(group.max_steps for group in batch))


def _batch_seed(asked: Sequence[SampleRequest], rows: Sequence[_Row]) -> int:
    """A seed from the seeds of all rows of a batch."""
    text = repr([(request.seed, row.sample) for request, row in zip(asked, rows, strict=True)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _parts(rows: list[_Row], size: int) -> list[list[_Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
