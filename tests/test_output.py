"""Texts from outside are printed as they are: brackets stay, nothing steers the terminal."""

from __future__ import annotations

import json

import pytest

from selfplay.commands import doctor
from selfplay.commands.output import plain, print_json, print_table
from selfplay.commands.transcript import turn_text
from selfplay.config import DoctorConfig

WILD = ["test_a[red-1]", "selfplay[docker]", "[/bold]", "[link=x]y[/link]", ":smile:", "a\\[b"]


@pytest.mark.parametrize("text", WILD)
def test_tables_print_every_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(text, (text, "b"), [(text, 1.5), ("x", True)])
    assert capsys.readouterr().out.count(text) == 3


def test_what_steers_a_terminal_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("id",), [("a\x1b[2Jb\udce9\r",)])
    assert r"a\x1b[2Jb\udce9\r" in capsys.readouterr().out
    assert plain("two\nlines\té") == "two\nlines\té"
    assert "test_a[x]" in turn_text(1, "test_a[x]", "", {}, "\x1b")


def test_documents_with_bytes_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"é": "a\udce9"})
    out = capsys.readouterr().out
    out.encode("utf-8")
    assert json.loads(out) == {"é": "a\udce9"}


def test_doctor_names_the_extra_in_full(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setitem(doctor.PACKAGES, "no-such-package", "pip install 'selfplay[docker]'")
    doctor.run(DoctorConfig())
    assert "selfplay[docker]" in capsys.readouterr().out
