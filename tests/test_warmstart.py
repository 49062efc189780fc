"""Making the examples of a warm start goes on where it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands import warmstart
from selfplay.commands.warmstart import TRIED, make_bare_examples, make_examples
from selfplay.config import WarmstartConfig, load_config
from selfplay.scripted.compact import ScriptedPolicy
from selfplay.warmstart.bare_examples import code_source
from selfplay.warmstart.lessons import lesson_line
from selfplay.warmstart.tries import Tries


def make(out: Path) -> list[str]:
    out.mkdir(exist_ok=True)
    words = [f"out={out}", "repos.train=[sample-ledger]", "num_bugs=4", "sandbox=bubblewrap"]
    config = load_config(WarmstartConfig, "warmstart", words)
    make_examples(config, ScriptedPolicy().tokenizer, out / "examples.jsonl", out / "c.sqlite")
    return (out / "examples.jsonl").read_text().splitlines()


def tried(out: Path) -> list[str]:
    return [json.loads(line)["task_id"] for line in (out / TRIED).read_text().splitlines()]


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


FUNCTIONS = "def f{0}(a, b):\n    if a < b + {0}:\n        return a + 1\n    return b - {0}\n\n\n"


def test_bare_repairs_go_on_where_they_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    for number in range(20):
        text = FUNCTIONS.format(number) + FUNCTIONS.format(number + 10)
        (code / f"m{number}.py").write_text(text if number != 2 else "x = 1\n")
    words = [f"sources=[{code}]", "num_bare=9", f"out={tmp_path}", "repos.train=[sample-ledger]"]
    config = load_config(WarmstartConfig, "warmstart", words)
    sources, tokenizer = [code_source(str(code))], ScriptedPolicy().tokenizer
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    make_bare_examples(config, sources, tokenizer, whole)
    expected = whole.read_text().splitlines()
    assert len(expected) == 9
    drawn: list[str] = []

    def dies(line: Any, name: str) -> dict[str, Any]:
        drawn.append(name)
        if len(drawn) == 6:
            raise KeyboardInterrupt
        return lesson_line(line, name)

    monkeypatch.setattr(warmstart, "lesson_line", dies)
    with pytest.raises(KeyboardInterrupt):
        make_bare_examples(config, sources, tokenizer, killed)
    with killed.open("a") as stream:
        stream.write('{"torn')
    make_bare_examples(config, sources, tokenizer, killed)
    assert killed.read_text().splitlines() == expected
    assert len(drawn) < 6 + 9  # not all of it again
    other = load_config(WarmstartConfig, "warmstart", [*words, "seed=1"])
    make_bare_examples(other, sources, tokenizer, killed)
    assert killed.read_text().splitlines() != expected


@pytest.mark.model
@pytest.mark.slow
def test_no_minutes_are_no_steps(tmp_path: Path) -> None:
    """An adapter that was not trained, and a record that says so."""
    (tmp_path / "examples.done").touch()
    code = tmp_path / "code"
    code.mkdir()
    for number in range(3):
        (code / f"m{number}.py").write_text(FUNCTIONS.format(number))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "examples.done").touch()
    (tmp_path / "out" / "examples.jsonl").touch()
    words = [f"out={tmp_path / 'out'}", "repos.train=[sample-ledger]", "max_minutes=0", "rank=2"]
    words += [f"sources=[{code}]", "num_bare=3", "json=true"]
    assert warmstart.run(load_config(WarmstartConfig, "warmstart", words)) == 0
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert (record["num_steps"], record["loss_first"], record["loss_last"]) == (0, None, None)
    assert (tmp_path / "out" / "adapter").is_dir()
    assert not (tmp_path / "out" / "training").exists()
