"""Text to ids, for many threads at once.

A fast transformers tokenizer keeps `split_special_tokens` as state of its shared backend: two
threads that ask for different values change each other's result. So each value has its own copy.
"""

from __future__ import annotations

import copy
from typing import Any


class TextEncoder:
    """`tokenizer`: a transformers tokenizer; nobody else may encode with it."""

    def __init__(self, tokenizer: Any) -> None:
        self._markup = tokenizer
        self._plain = copy.deepcopy(tokenizer)

    def markup(self, text: str) -> tuple[int, ...]:
        """Ids of a template's own text, in which special tokens are tokens."""
        return _encode(self._markup, text, split_special_tokens=False)

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of what somebody wrote, in which spellings of special tokens stay text."""
        return _encode(self._plain, text, split_special_tokens=True)


def _encode(tokenizer: Any, text: str, *, split_special_tokens: bool) -> tuple[int, ...]:
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=split_special_tokens)
    return tuple(encoded["input_ids"])
