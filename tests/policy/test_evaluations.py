"""`selfplay evaluate`: what was judged is kept, one odd answer or lost repository ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfplay.commands.attempt_log import places
from selfplay.commands.summary import print_summary
from selfplay.files import read_json_lines

from .served import ANSWER, serving

ROOT = Path(__file__).resolve().parents[2]
OK = (200, ANSWER, {})
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "selfplay", *map(str, words), "json=true"]


def selfplay(*words: object, rc: int = 0) -> Any:
    done = subprocess.run(
        command(*words), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == rc, done.stderr[-2000:]
    return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks."""
    run = tmp_path_factory.mktemp("suite")
    selfplay(
        "inject", "repo=sample-ledger", "source=procedural", "num_bugs=2", f"out={run}",
        "sandbox=bubblewrap",
    )  # fmt: skip
    selfplay("export", f"run={run}", "format=swebench", f"out={run / 'export'}")
    lines = (run / "export" / "suite.jsonl").read_text().splitlines()[:2]
    assert len(lines) == 2
    file = run / "two.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def evaluation(suite: Path, url: str, out: Path, *more: str) -> list[str]:
    return [
        "evaluate", f"suite={suite}", "policy=openai", "policy.model=m", f"policy.openai.url={url}",
        "policy.openai.max_concurrency=2", "num_samples=2", f"out={out}", "sandbox=bubblewrap",
        *more,
    ]  # fmt: skip


def attempts(out: Path) -> list[dict[str, Any]]:
    return [line for _, line in read_json_lines(places(str(out))[1])]


def test_a_killed_evaluation_goes_on_from_what_it_had_judged(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    with serving() as server:
        server.script = [OK, OK, (-1, None, {}), (-1, None, {})]
        words = command(*evaluation(suite, server.url, out))
        process = subprocess.Popen(
            words, cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until = time.monotonic() + 200
            while len(attempts(out)) < 2 and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        judged = attempts(out)
        assert len(judged) == 2 and json.loads(out.read_text()) == {"finished": False}
    with places(str(out))[1].open("a") as stream:
        stream.write('{"torn')
    with serving() as server:
        result = selfplay(*evaluation(suite, server.url, out))
        assert len(server.seen) == 2, "what is there is not asked again"
        assert [(t["n"], t["errored"]) for t in result["tasks"]] == [(2, 0), (2, 0)]
        assert json.loads(out.read_text()) == result and attempts(out)[:2] == judged
        assert len({(a["bug_id"], a["sample"]) for a in attempts(out)}) == 4
        assert selfplay(*evaluation(suite, server.url, out))["tasks"] == result["tasks"]
        assert len(server.seen) == 2
        refused = selfplay(*evaluation(suite, server.url, out, "policy.temperature=0.5"), rc=2)
        assert "another policy" in refused
    out.unlink()
    with serving() as server:
        selfplay(*evaluation(suite, server.url, out))
        assert len(server.seen) == 4, "without its result it begins anew"
    (line, *_) = attempts(out)
    assert line["answer"] == "four" and line["reason"] == "bad_format" and line["patch"] == ""
    assert line["num_tokens"] > 0 and line["num_prompt_tokens"] > 0
    shown = selfplay("episode", "show", f"run={places(str(out))[1]}")
    assert len(shown) == 4 and shown[0]["answer"] == "four"


def test_no_credit_stops_and_keeps(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.jsonl"
    with serving() as server:
        server.script = [OK, OK, OK, (402, {"error": {"message": "Insufficient credits"}}, {})]
        told = selfplay(*evaluation(suite, server.url, out), rc=2)
        assert "credit" in told and len(attempts(out)) == 3
        kept = json.loads((tmp_path / "e.summary.json").read_text())
        assert sum(task["n"] for task in kept["tasks"]) == 3 and kept["num_errored"] == 0
        result = selfplay(*evaluation(suite, server.url, out))
        assert len(server.seen) == 5 and [t["n"] for t in result["tasks"]] == [2, 2]


def test_errored_attempts_are_tried_again_and_a_lost_repository_is_told(
    suite: Path, tmp_path: Path
) -> None:
    task = json.loads(suite.read_text().splitlines()[0])
    gone = {**task, "instance_id": "gone-1", "repo": "gone"}
    gone["environment"] = {"repo": "gone", "source": {"local": {"path": "/no/such/place"}}}
    three = tmp_path / "three.jsonl"
    three.write_text(suite.read_text() + json.dumps(gone) + "\n")
    out = tmp_path / "e.json"
    odd = (400, {"error": {"message": "bad request"}}, {})
    with serving() as server:
        server.script = [OK, odd]
        result = selfplay(*evaluation(three, server.url, out))
        assert [(t["n"], t["errored"]) for t in result["tasks"]][2] == (0, 2)
        assert sum(t["n"] for t in result["tasks"]) == 3 and result["num_errored"] == 3
        asked = len(server.seen)
        result = selfplay(*evaluation(three, server.url, out))
        assert len(server.seen) == asked + 1 and sum(t["n"] for t in result["tasks"]) == 4


def test_agentic_episodes_are_kept_too(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    ends = {"choices": [{"message": {"content": "```submit\n```"}, "finish_reason": "stop"}]}
    filtered = {"choices": [{"message": {}, "finish_reason": "content_filter"}]}
    words = ("scaffold=agentic", "scaffold.agent.num_open=1", "num_samples=1")
    with serving() as server:
        server.script = [(200, ends, {}), (200, filtered, {})]
        result = selfplay(*evaluation(suite, server.url, out, *words))
        assert result["reasons"].pop("content_filter") == 1 and sum(result["reasons"].values()) == 1
        assert {a["info"]["ending"] for a in attempts(out)} == {"submitted", "no_answer"}
        assert selfplay(*evaluation(suite, server.url, out, *words))["tasks"] == result["tasks"]
        assert len(server.seen) == 2


def test_an_attempt_is_kept_whole_and_can_be_looked_at(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    with serving() as server:
        server.script = [OK] * 4
        selfplay(*evaluation(suite, server.url, out))
    kept = attempts(out)
    tasks = {line["instance_id"]: line for _, line in read_json_lines(suite)}
    assert len(kept) == 4
    for line in kept:
        assert "Failing tests:" in line["prompt"] and "Fix the bug" in line["prompt"]
        assert line["gold"] == tasks[line["bug_id"]]["patch"]
        assert {"answer", "patch", "resolved", "reason"} <= line.keys()
    words = ["episode", "show", f"run={places(str(out))[1]}", "max_lines=200"]
    shown = subprocess.run(
        [sys.executable, "-m", "selfplay", *words],
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
    ).stdout
    assert shown.count("prompt:\n") == 4
    for line in kept:
        assert line["prompt"].strip() in shown and line["gold"].strip() in shown


def test_a_run_keeps_the_attempts_of_its_evaluations_and_goes_on_from_them(
    suite: Path, tmp_path: Path
) -> None:
    words = [
        "train", "experiment=samples", "name=r", f"runs_dir={tmp_path}", "sandbox=bubblewrap",
        f"evaluation.suite={suite}", "evaluation.num_samples=2",
    ]  # fmt: skip

    def train(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*words, *more), cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300
        )

    refused = train("repos.train=[sample-ledger]", "steps=0")
    assert refused.returncode == 2 and "holds bugs of sample-ledger" in refused.stderr
    assert train("repos.train=[sample-textkit]", "steps=0").returncode == 0
    run = tmp_path / "r"
    file = run / "eval_before.attempts.jsonl"
    whole = file.read_text().splitlines()
    lines = [json.loads(line) for line in whole]
    assert len({(line["bug_id"], line["sample"]) for line in lines}) == len(lines) == 4
    assert all(line["prompt"] and line["gold"] and "patch" in line for line in lines)
    before = json.loads((run / "eval_before.json").read_text())
    (run / "eval_before.json").unlink()  # as a kill leaves it
    file.write_text("".join(f"{line}\n" for line in whole[:1]))
    assert train("repos.train=[sample-textkit]", "steps=0").returncode == 0
    assert file.read_text().splitlines()[0] == whole[0] and len(file.read_text().splitlines()) == 4
    again = json.loads((run / "eval_before.json").read_text())
    assert again["tasks"] == before["tasks"]
    assert (
        train("repos.train=[sample-textkit]", "steps=1").returncode == 0
    )  # the evaluation after it is another one
    assert json.loads((run / "eval_after.json").read_text())["step"] == 1
    assert len((run / "eval_after.attempts.jsonl").read_text().splitlines()) == 4
    assert (run / "logs" / "eval_after.attempts.jsonl.old").is_file()  # those after no step


def test_a_run_weighs_the_gold_answers_of_more_bugs_than_it_attempts(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bug is attempted and weighed; of two in the other suite the second is weighed alone."""
    first = tmp_path / "first.jsonl"
    first.write_text(suite.read_text().splitlines(keepends=True)[0])
    done = subprocess.run(
        command(
            "train", "experiment=samples", "name=w", f"runs_dir={tmp_path}", "sandbox=bubblewrap",
            "steps=0", "policy=transformers", "repos.train=[sample-textkit]",
            f"evaluation.suite={first}", "evaluation.num_samples=2",
            f"evaluation.gold_suites=[{suite}]",
        ),
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (json.loads((tmp_path / "w" / f"eval_{when}.json").read_text())
                     for when in ("before", "after"))  # fmt: skip
    for document in (before, after):
        assert [row["n"] for row in document["tasks"]] == [2, 0]
        assert all(0 <= row["p_gold"] <= 1 for row in document["tasks"])
    moved = after["p_gold"]["mean"] - before["p_gold"]["mean"]
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert summary["details"]["p_gold_change"]["mean"] == pytest.approx(moved)
    print_summary(summary, SimpleNamespace(path=tmp_path / "w"))  # type: ignore[arg-type]
    assert "held-out p(gold)" in capsys.readouterr().out
