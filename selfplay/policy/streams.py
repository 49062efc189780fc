"""Answers that came as a stream though none was asked for: some servers and gateways always send
server-sent events (mini-sglang#51, unsloth#6570)."""

from __future__ import annotations

import json
from typing import Any

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def joined_stream(text: str) -> Any:
    """The document that the chunks of a stream make together; None for what is no whole stream."""
    lines = [line.strip() for line in text.splitlines()]
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    try:
        chunks = [json.loads(line) for line in data if line and line != "[DONE]"]
    except (ValueError, RecursionError):
        return None
    message: dict[str, Any] = {}
    choice: dict[str, Any] = {"message": message, "finish_reason": None}
    document: dict[str, Any] = {"choices": [choice]}
    for chunk in chunks:
        if not isinstance(chunk, dict) or chunk.get("error") or chunk.get("object") == "error":
            return chunk
        document["usage"] = chunk.get("usage") or document.get("usage")
        choices = chunk.get("choices")
        part = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(part, dict) and not part.get("index"):
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            _add(message, part.get("delta") or part.get("message"))
    is_whole = bool(choice["finish_reason"]) or "[DONE]" in data
    return document if chunks and is_whole else None


def _add(message: dict[str, Any], delta: Any) -> None:
    """Texts are continued; of a call each chunk has its number and the next piece."""
    if not isinstance(delta, dict):
        return
    for key in _TEXTS:
        if isinstance(delta.get(key), str):
            message[key] = message.get(key, "") + delta[key]
    for place, piece in enumerate(delta.get("tool_calls") or ()):
        if not isinstance(piece, dict):
            continue
        calls = message.setdefault("tool_calls", [])
        number = piece.get("index", place)
        while isinstance(number, int) and len(calls) <= number < 64:
            calls.append({"function": {"name": "", "arguments": ""}})
        function = piece.get("function")
        if isinstance(number, int) and number < len(calls) and isinstance(function, dict):
            for key, value in function.items():
                if key in ("name", "arguments") and isinstance(value, str):
                    calls[number]["function"][key] += value
