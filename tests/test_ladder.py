"""The three edit languages of `scripts/ladder.py` say the same edit; changes between two models."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import pytest

from selfplay.compact.edits import EditError, Excerpt, Listing, parse_edit, render_edit
from selfplay.files import append_json_lines

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from ladder import print_changes
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


def test_changes_between_two_files_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three bugs of two projects, one of them never shown: 0.1 to 0.2, 0.5 to 0.5."""

    def lines(name: str, first: float) -> Path:
        file = tmp_path / name
        rows = [
            {"bug": "a", "repo": "one", "shown": True, "logprob": math.log(first)},
            {"bug": "b", "repo": "one@0123456789ab", "shown": True, "logprob": math.log(0.5)},
            {"bug": "c", "repo": "two", "shown": False},
        ]
        about = {"model": name, "suite": "held", "condition": "now"}
        other = {**rows[0], **about, "condition": "kind", "logprob": 0.0}
        file.write_text("".join(json.dumps(row | about) + "\n" for row in rows))
        append_json_lines(file, [other])
        return file

    options = argparse.Namespace(before=lines("before", 0.1), out=lines("after", 0.2))
    print_changes(options)
    p, eight = capsys.readouterr().out.splitlines()
    assert p.startswith(
        "p(gold): 20.00 to 23.33 %, +3.33 points, over 3 bugs and over their 2 repo"
    )
    assert p.endswith(" [+0.00, +10.00], [+0.00, +7.50]")
    assert eight.startswith("1 of 8: 52.19 to 60.94 %, +8.76 points")
