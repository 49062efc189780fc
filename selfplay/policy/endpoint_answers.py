"""What servers with chat completions really answer: texts, refusals, and answers that are none.

Each odd answer is one of three things: it passes (`Unreachable`: ask again), it concerns one sample
(`SampleRefused`: that sample has a reason), or it will be the same for all (`Refused`, `UserError`:
stop and keep what is there).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selfplay.errors import PolicyError, SelfplayError, UserError
from selfplay.policy.http import Garbled, Refused, Unreachable, refusal

_PASSES = {408, 409, 425, 429}
_OF_ONE_SAMPLE = {400, 413, 422}
_LENGTH = {"length", "max_tokens", "max_output_tokens", "model_length", "token_limit"}
_LENGTH |= {"model_context_window_exceeded"}
_FILTERED = {"content_filter", "sensitive", "safety", "refusal", "recitation", "blocklist"}
_FILTERED |= {"prohibited_content", "spii", "guardrail_intervened", "content_filtered"}
_BROKEN = {"error", "network_error", "insufficient_system_resource", "abort", "aborted"}
_BROKEN |= {"cancelled", "malformed_function_call", "malformed_response", "timeout"}
_TOO_LONG = re.compile(
    r"context.{0,12}(?:length|window|size|limit)|(?:too|prompt) (?:long|many tokens)"
    r"|maximum (?:context|input|prompt)|exceeds? the (?:available|maximum|model)"
    r"|reduce the length|request too large",
    re.IGNORECASE,
)
_MODERATED = re.compile(
    r"content.?(?:filter|management|policy)|moderat|flagged|safety|responsible ?ai", re.IGNORECASE
)
_NO_CREDIT = re.compile(r"insufficient.?(?:quota|balance|credit|funds)|billing", re.IGNORECASE)
_LATER = re.compile(
    r"(?:retry|try again) (?:in|after)|per.?(?:minute|second)|retry.?delay|\b[RT]PM\b",
    re.IGNORECASE,
)
"""Of a 429 that names a quota of minutes and the billing plan in one breath, as Google's does."""
_PARAMETER = re.compile(r"\b(max_tokens|max_completion_tokens|temperature|top_p|seed)\b")


class SampleRefused(PolicyError):
    """No answer to this request; `reason` is a code. `errored`: by no fault of the model."""

    def __init__(self, reason: str, errored: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.errored = errored


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatAnswer:
    """A text and what the server counted. `is_empty`: nothing was said, thought or called."""

    text: str
    finish: Literal["stop", "length"]
    num_prompt: int = 0
    num_answer: int = 0
    is_empty: bool = False


def read_answer(document: Any, where: str) -> ChatAnswer:
    """The answer of a document. Raises as the head of this module says."""
    if not isinstance(document, dict):
        raise Garbled(f"{where}: answer of another form: {str(document)[:200]!r}")
    choices = document.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    fault = document.get("error") or (isinstance(choice, dict) and choice.get("error"))
    if fault or document.get("object") == "error":
        raise refusal(where, _status(fault or document), json.dumps(fault or document))
    if not isinstance(choice, dict):
        raise Garbled(f"{where}: answer of another form: no choices")
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    reason = str(choice.get("finish_reason") or "stop").lower()
    text = content_text(message.get("content"))
    calls = "".join(map(_written, _calls(message)))
    if reason in _BROKEN:
        raise Unreachable(f"{where}: the answer ended with {reason!r}")
    if reason in _FILTERED:
        raise SampleRefused("content_filter")
    if message.get("refusal") and not text:
        raise SampleRefused("refusal")
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    thought = message.get("reasoning_content") or message.get("reasoning")
    num_answer = _number(usage.get("completion_tokens"))
    return ChatAnswer(
        text=_whole("\n".join(filter(None, (text, calls)))),
        finish="length" if reason in _LENGTH else "stop",
        num_prompt=_number(usage.get("prompt_tokens")),
        num_answer=num_answer,
        is_empty=not (text or calls or thought or num_answer or reason in _LENGTH),
    )


def content_text(content: Any) -> str:
    """The text of a message: a text, or parts of which some are thoughts, images, references."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        content = [content]
    parts = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Mapping) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            parts.append(str(text.get("value", "")) if isinstance(text, Mapping) else str(text))
    return "".join(parts)


def judge(error: PolicyError, key_variable: str) -> SelfplayError:
    """What an error means: `Unreachable` passes, `SampleRefused` is of one sample, else: stop."""
    if not isinstance(error, Refused):
        return error
    text, status = f"{error.code} {error.said}", error.status
    no_credit = status == 402 or bool(_NO_CREDIT.search(text))
    if status == 429 and _LATER.search(text):
        no_credit = False
    if status == 401 or no_credit:
        remedy = "is there credit left" if no_credit else "is it right"
        return UserError(f"{error}; the key is in ${key_variable}: {remedy}?")
    if _TOO_LONG.search(text) and status not in _PASSES:
        return SampleRefused("context_length")
    if _MODERATED.search(text) and status in (*_OF_ONE_SAMPLE, 403, 451):
        return SampleRefused("content_filter")
    if status in (401, 403):
        return UserError(f"{error}; is the key in ${key_variable} right?")
    if status >= 500 or status in _PASSES:
        return Unreachable(str(error))
    if status not in _OF_ONE_SAMPLE:
        return error
    named = _PARAMETER.search(text)
    if named:
        return UserError(
            f"{error}; leave the key out with policy.openai.omit=[{named[1]}], or send it under "
            f"another name with policy.openai.rename={{{named[1]}: ...}}"
        )
    if re.search(r"system.{0,12}role|role.{0,12}system", text, re.IGNORECASE):
        return UserError(f"{error}; set policy.openai.system_role=user (or developer)")
    return SampleRefused(f"infrastructure: {error}", errored=True)


def _whole(text: str) -> str:
    """The text with half characters replaced: tokens of an emoji that JSON cuts in two."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _status(fault: Any) -> int:
    """The HTTP status that an error inside an answer names; 502 where it names none."""
    code = fault.get("code") if isinstance(fault, Mapping) else None
    try:
        return int(code) if 400 <= int(code) < 600 else 502  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 502


def _calls(message: Mapping[str, Any]) -> list[Any]:
    """Native calls; a single one may stand where OpenAI had them first."""
    found = message.get("tool_calls")
    old = message.get("function_call")
    return list(found) if isinstance(found, list) and found else [{"function": old}] if old else []


def _written(call: Any) -> str:
    """A native tool call as the text that `calls.styles` reads."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return ""
    arguments = function.get("arguments")
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments)
    name = json.dumps(str(function.get("name")))
    return f'<tool_call>\n{{"name": {name}, "arguments": {shown or "{}"}}}\n</tool_call>\n'


def _number(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0
