"""Making the examples of a warm start goes on where it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands.warmstart import TRIES, make_examples
from selfplay.config import WarmstartConfig, load_config
from selfplay.scripted.compact import ScriptedPolicy
from selfplay.warmstart.tries import Tries


def make(out: Path) -> list[str]:
    out.mkdir(exist_ok=True)
    words = [f"out={out}", "repos.train=[sample-ledger]", "num_bugs=4", "sandbox=bubblewrap"]
    config = load_config(WarmstartConfig, "warmstart", words)
    make_examples(config, ScriptedPolicy().tokenizer, out / "examples.jsonl", out / "c.sqlite")
    return (out / "examples.jsonl").read_text().splitlines()


def tried(out: Path) -> list[str]:
    return [json.loads(line)["task_id"] for line in (out / TRIES).read_text().splitlines()]


@pytest.mark.slow
def test_killed_it_ends_as_if_it_had_never_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = make(whole)
    keep = Tries.keep

    def dies(tries: Tries, *arguments: Any) -> None:
        if tries.num_valid < 2:
            return keep(tries, *arguments)
        with (killed / "examples.jsonl").open("a") as stream:
            stream.write('{"of": "a try that is cut off"}\n{"torn')
        raise KeyboardInterrupt

    monkeypatch.setattr(Tries, "keep", dies)
    with pytest.raises(KeyboardInterrupt):
        make(killed)
    monkeypatch.undo()
    before = tried(killed)
    assert make(killed) == expected
    assert tried(killed) == tried(whole)
    assert tried(killed)[: len(before)] == before  # none of them a second time
    assert len(set(tried(killed))) == len(tried(killed))
