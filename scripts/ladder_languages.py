"""Three edit languages for one listing: numbered lines, search/replace blocks, whole functions.

All of them are translated from and to the numbered answer, which the project reads.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from selfplay.compact.edits import EditError, Listing, parse_edit, parse_listing, render_edit
from selfplay.repo.languages.python_source import split_lines

SEARCH, MIDDLE, REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_BLOCK = re.compile(rf"{SEARCH}\n(.*?)^{MIDDLE}\n(.*?)^{REPLACE}", re.DOTALL | re.MULTILINE)
_FENCE = re.compile(r"```(?:python)?\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """How a listing is shown and an edit is said; "" for `system`: the project's own."""

    name: str
    system: str = ""
    example: str
    prefill: str = ""
    say: Callable[[dict[str, str], dict[str, str]], str]
    read: Callable[[str, dict[str, str]], dict[str, str]]

    def listing(self, listing: Listing) -> str:
        """The listing as the prompt shows it."""
        text = listing.render()
        if self.name == "numbered":
            return text
        return "\n".join(re.sub(r"^\d+\|( |$)", "", line) for line in text.split("\n"))


def gold_answer(language: Language, listing: Listing, answer: str) -> tuple[str, int]:
    """(the numbered gold answer in a language, without its prefill; characters that say where)."""
    if language.name == "numbered":
        match = re.match(r"\d+[|+-]", answer)
        assert match
        return answer, match.end()
    old, new = texts(listing, answer)
    said = language.say(old, new)
    assert said.startswith(language.prefill)
    place = said.find(MIDDLE) if language.name == "replace" else 0
    return said.removeprefix(language.prefill), max(0, place - len(language.prefill))


def texts(listing: Listing, answer: str) -> tuple[dict[str, str], dict[str, str]]:
    """({function's number: shown text}, the same of those that a numbered answer changes)."""
    shown = parse_listing(listing.render())
    return dict(shown.sources), parse_edit(answer, shown)


def to_numbered(language: Language, listing: Listing, answer: str) -> str:
    """An answer in a language as a numbered one. Raises `EditError`."""
    if language.name == "numbered":
        return answer
    shown = parse_listing(listing.render())
    changed = language.read(answer, dict(shown.sources))
    changed = {name: text for name, text in changed.items() if text != shown.sources[name]}
    if not changed:
        raise EditError("no_change")
    try:
        return render_edit(shown, changed)
    except ValueError as error:
        raise EditError("bad_format", str(error)) from None


def _say_blocks(old: dict[str, str], new: dict[str, str]) -> str:
    whole = "\n".join(old.values())
    blocks = []
    for name, text in new.items():
        before, after = split_lines(old[name]), split_lines(text)
        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag == "equal":
                continue
            while i1 > 0 and (i1 == i2 or whole.count("".join(before[i1:i2])) > 1):
                i1, j1 = i1 - 1, j1 - 1
            blocks.append(
                f"{SEARCH}\n{''.join(before[i1:i2])}{MIDDLE}\n{''.join(after[j1:j2])}{REPLACE}"
            )
    return "\n".join(blocks)


def _read_blocks(answer: str, old: dict[str, str]) -> dict[str, str]:
    found = _BLOCK.findall(answer)
    if not found:
        raise EditError("bad_format")
    now = dict(old)
    for search, replacement in found:
        places = [name for name, text in now.items() if search and search in text]
        if not places:
            raise EditError("bad_line", search[:80])
        now[places[0]] = now[places[0]].replace(search, replacement, 1)
    return now


def _say_whole(old: dict[str, str], new: dict[str, str]) -> str:
    return "\n".join(f"```python\n{text}```" for text in new.values())


def _read_whole(answer: str, old: dict[str, str]) -> dict[str, str]:
    found = _FENCE.findall(answer)
    if not found:
        raise EditError("bad_format")
    changed = {}
    for text in found:
        text = text if text.endswith("\n") else text + "\n"
        head = _head(text)
        place = next((name for name, shown in old.items() if head and _head(shown) == head), None)
        if place is None:
            raise EditError("bad_line", text[:80])
        changed[place] = text
    return changed


def _head(text: str) -> str:
    match = re.search(r"\bdef (\w+)", text)
    return match[1] if match else ""


EXAMPLE = "\nExample: where `return a - b` of a function `add` is wrong, the answer is\n"
"""For models that were never trained on a language; the lines of the answer follow."""

LANGUAGES = {
    language.name: language
    for language in (
        Language(
            name="numbered",
            example="2|     return a + b",
            say=lambda old, new: "",
            read=lambda answer, old: {},
        ),
        Language(
            name="replace",
            system=(
                "Edit code. Answer with the lines to find, exactly as they are, and the lines to "
                f"put there:\n{SEARCH}\nold lines\n{MIDDLE}\nnew lines\n{REPLACE}"
            ),
            example=f"{SEARCH}\n    return a - b\n{MIDDLE}\n    return a + b\n{REPLACE}",
            prefill=f"{SEARCH}\n",
            say=_say_blocks,
            read=_read_blocks,
        ),
        Language(
            name="whole",
            system="Edit code. Answer with the whole corrected function in a ```python block.",
            example="```python\ndef add(a, b):\n    return a + b\n```",
            prefill="```python\n",
            say=_say_whole,
            read=_read_whole,
        ),
    )
}
"""By name."""
