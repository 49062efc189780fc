"""Texts on the command line arrive as they stand, in every command that takes paths."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.config import (
    ExportConfig,
    InjectConfig,
    MineConfig,
    TrainConfig,
    load_config,
)
from selfplay.config.overrides import read_override
from selfplay.files import at_home

ODD = [
    "/path/with blank/é", "/na me (é) x", "/a,b", "/a[1]/{2}", "it's", "a\\", "a\\'b", 'say "x"',
    "x=y", "1e3", "1_000", "0x10", "true", "/a#b", "/a%20$HOME", "~/a b", " a ", "/日本語", "a:b",
    "a\nb", "\\\\server\\x",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_a_path_is_taken_as_it_stands(text: str) -> None:
    path = at_home(text)
    assert load_config(MineConfig, "mine", [f"repo={text}"]).repo == path
    assert load_config(ExportConfig, "export", ["run=-", f"out={text}"]).out == path
    train = load_config(TrainConfig, "train", [f"runs_dir={text}", f"policy.model={text}"])
    assert (train.runs_dir, train.policy.model) == (path, path)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text(text: str) -> None:
    if text[0] not in "'\"" and "${" not in text and text != "null":
        word = read_override(MineConfig, f"repo={text}")
        assert OverridesParser.create().parse_override(word).value() == text


@pytest.mark.parametrize("text", ["/na me (é) x", "toolz", "/a(b)"])
def test_one_repository_or_several(text: str) -> None:
    assert load_config(InjectConfig, "inject", [f"repo={text}"]).repo == text
    several = load_config(
        InjectConfig, "inject", [f"repo=[toolz, {text}]", "source=procedural"]
    ).repo
    assert list(several) == ["toolz", text]
    train = load_config(TrainConfig, "train", [f'repos.train=[{text},"a, b"]'])
    assert train.repos.train == [text, "a, b"]


def test_what_hydra_says_otherwise_stays() -> None:
    config = load_config(
        TrainConfig,
        "train",
        ["sandbox=bubblewrap", "name='a b'", "policy.adapter=null", "evaluation.suite=${name}"],
    )
    assert (config.sandbox.name, config.name) == ("bubblewrap", "a b")
    assert (config.policy.adapter, config.evaluation.suite) == (None, "a b")
