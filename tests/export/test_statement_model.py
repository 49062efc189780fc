"""Issue texts by a server: kept only where they give nothing away; resumable; nothing ends it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.config import OpenAIConfig
from selfplay.errors import UserError
from selfplay.export.statement import problem_statement
from selfplay.export.statement_model import FILE, ModelStatements
from selfplay.policy.openai import OpenAIPolicy
from selfplay.types import SolveTask
from tests.policy.served import Unreliable, serving

from .conftest import MakeTask

GOOD = "Doubling a number gives the wrong result for three: five comes back where six is expected."


def answer(text: str | None) -> tuple[int, Any, dict[str, str]]:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {}}, {}


def open_statements(server: Unreliable, out: Path) -> ModelStatements:
    config = OpenAIConfig(url=server.url, max_retries=0)
    policy = OpenAIPolicy("writer", config, first_wait_s=0.01)
    return ModelStatements(policy, "writer", out / FILE, 200)


@pytest.fixture
def task(make_task: MakeTask) -> SolveTask:
    return dataclasses.replace(make_task("x * 2", "x + 2"), failure_output="E assert 5 == 6\n")


def test_texts_are_kept_where_they_give_nothing_away(task: SolveTask, tmp_path: Path) -> None:
    others = [dataclasses.replace(task, failure_output=f"E {n}\n") for n in range(5)]
    with serving() as server:
        server.script += [
            answer(f"<think>return x * 2, surely</think>{GOOD}"),
            answer(f"{GOOD} Write return x*2 instead."),
            answer("Broken."),
            answer(None),
            (400, {"error": {"message": "content filter", "code": "content_filter"}}, {}),
            answer(GOOD),
        ]
        statements = open_statements(server, tmp_path)
        texts = [statements(one) for one in (task, *others)]
        asked = server.seen[0][1]["messages"][-1]["content"]
    usual = problem_statement(task)
    assert texts == [GOOD, usual, usual, usual, usual, GOOD]
    assert statements.counts["kept"] == 2 and statements.counts["leak"] == 1
    assert "E assert 5 == 6" in asked and "return x * 2" not in asked


def test_the_same_command_asks_for_none_twice(task: SolveTask, tmp_path: Path) -> None:
    other = dataclasses.replace(task, failure_output="E assert 7 == 8\n")
    with serving() as server:
        server.script += [answer(GOOD), answer(f"{GOOD} Now.")]
        first = open_statements(server, tmp_path)
        assert first(task) == GOOD
        with (tmp_path / FILE).open("a") as file:
            file.write('{"key": "torn')
        again = open_statements(server, tmp_path)
        assert [again(task), again(other)] == [GOOD, f"{GOOD} Now."]
        assert len(server.seen) == 2
    lines = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert [line["instance_id"] for line in lines] == [task.bug_id] * 2


def test_a_server_that_is_gone_ends_the_asking_alone(task: SolveTask, tmp_path: Path) -> None:
    with serving() as server:
        statements = open_statements(server, tmp_path)
    assert statements(task) == problem_statement(task)
    assert statements(task) == problem_statement(task)
    assert statements.counts == {"not_answered": 2}
    assert not (tmp_path / FILE).exists(), "it is asked the next time"


def test_a_wrong_key_is_told(task: SolveTask, tmp_path: Path) -> None:
    with serving() as server:
        server.script.append((401, {"error": {"message": "bad key"}}, {}))
        with pytest.raises(UserError, match="key"):
            open_statements(server, tmp_path)(task)
