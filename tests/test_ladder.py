"""The three edit languages of `scripts/ladder.py` say the same edit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from selfplay.compact.edits import EditError, Excerpt, Listing, parse_edit, render_edit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from ladder_languages import LANGUAGES, gold_answer, to_numbered

SOURCE = (
    "class A:\n    def add(self, a, b):\n        a = a\n        return a - b\n"
    "\n\ndef two():\n    return 1\n"
)
LISTING = Listing(
    [Excerpt(path="m.py", rows=(1, 2, 3), heading="Adds."), Excerpt(path="m.py", rows=(6, 7))],
    {"m.py": SOURCE},
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return a - b", "return a + b"),
        ("        a = a\n", ""),
        ("        a = a\n", "        a = a\n        b = b\n"),
        ("return 1", "return 2"),
        ("    def add(self, a, b):\n", "    def add(self, a, b=0):\n"),
    ],
)
@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_the_gold_answer_in_every_language_is_the_gold_edit(name: str, old: str, new: str) -> None:
    fixed = {"m.py": SOURCE.replace(old, new)}
    language = LANGUAGES[name]
    said, place = gold_answer(language, LISTING, render_edit(LISTING, fixed))
    assert parse_edit(to_numbered(language, LISTING, language.prefill + said), LISTING) == fixed
    assert 0 <= place <= len(said)
    assert ("1| def" in language.listing(LISTING)) == (name == "numbered")


@pytest.mark.parametrize("name", ["replace", "whole"])
@pytest.mark.parametrize("answer", ["", "It works.", "```python\ndef other():\n    pass\n```"])
def test_what_is_no_edit_is_refused(name: str, answer: str) -> None:
    with pytest.raises(EditError):
        to_numbered(LANGUAGES[name], LISTING, answer)
