"""What a model thought and what it said: reasoning is never an edit and never a call.

Served models give their reasoning in a field of its own, or in the text as their templates have it:

    <think> ... </think> said        (also <thinking>, <thought>, <seed:think>, <think:x>, [THINK],
                                      <|begin_of_thought|>, <|open|>think<|sep|>)
    ... </think> said                (the prompt has opened it; also [BEGIN FINAL RESPONSE])
    <|channel|>analysis<|message|> ... <|end|><|start|>assistant<|channel|>final<|message|> said
"""

from __future__ import annotations

import re

_NAME = r"(?:(?:\w+:)?think|think:\w+|thinking|thought|thoughts|reasoning)"
_CITED = r"(?<!['\"])(?<!(?<!`)`)"  # a tag behind a quote is spoken of
_END = re.compile(
    rf"{_CITED}(?:</{_NAME}>|\[/THINK\]|<\|/think\|>|<\|end_?of_?thought\|>|<\|END_THINKING\|>"
    r"|<\|close\|>think<\|sep\|>|^\[BEGIN FINAL RESPONSE\]$"
    r"|<channel\|>|<\|channel\|>final(?: ?<\|constrain\|>\w+)?<\|message\|>"
    r"|<\|end\|>\s*<\|start\|>assistant(?=<\|channel\|>commentary| to=))",
    re.IGNORECASE | re.MULTILINE,
)
_MARK = (
    rf"(?:<{_NAME}>|\[THINK\]|<\|think\|>|<\|begin_?of_?thought\|>|<\|START_THINKING\|>"
    r"|<\|open\|>think<\|sep\|>|<\|channel>thought"
    r"|(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>)"
)
_BEGIN = re.compile(rf"^[ \t]*{_MARK}", re.IGNORECASE | re.MULTILINE)
_BEGUN = re.compile(
    rf"^[ \t]*{_MARK}|{_MARK}\s*\Z|^Here are my reasoning steps:$", re.IGNORECASE | re.MULTILINE
)
"""At the end of a prompt; in an answer such marks within a line, and such words, are spoken of."""
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z\s]).*?assistantfinal", re.DOTALL)
"""Channels of which a decoder has left out the special tokens."""
_LAST = re.compile(r"<\|(?:return|end|call)\|>\s*\Z")
MARKS = frozenset(
    ["[THINK]", "[/THINK]", "<think>", "</think>", "<|channel|>", "<|message|>", "<|start|>"]
) | frozenset(["<|end|>", "<|constrain|>", "<|channel>", "<channel|>", "<|START_THINKING|>"]).union(
    ["<|END_THINKING|>"]
)
"""Special tokens of some models that must be left in a text for `split` to see its parts."""


def split(text: str, *, opened: bool = False) -> tuple[str, str]:
    """(thought, said) of an answer.

    The last end of thinking counts: an earlier one may be a part of the thoughts. Thinking that
    never ends leaves nothing said; `opened`: the prompt has begun it. A mark at the very end, with
    which some models close an answer, is left out.
    Example: `split("<think>1| no</think>2| yes") == ("<think>1| no</think>", "2| yes")`.
    """
    text = _LAST.sub("", text)
    ends = [match.end() for match in _END.finditer(text)]
    bare = _BARE_CHANNELS.match(text)
    end = max([*ends, bare.end() if bare else 0], default=0)
    if opened and not end:
        return text, ""
    begin = _BEGIN.search(text, end)
    if begin is None:
        return text[:end], text[end:]
    said = text[end : begin.start()]
    return (text, "") if not said.strip() else (text[:end] + text[begin.start() :], said)


def is_open(text: str) -> bool:
    """Whether a text ends in thoughts, as prompts do that begin them for the model."""
    end = max((match.end() for match in _END.finditer(text)), default=0)
    return _BEGUN.search(text, end) is not None


def said(text: str) -> str:
    """What was said."""
    return split(text)[1]
