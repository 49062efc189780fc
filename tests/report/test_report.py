"""`selfplay report`: what the page holds, what it leaves out, and what it never does."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfplay.commands.report import report_of_run, write_report
from selfplay.corpus.corpus import Corpus
from selfplay.errors import UserError
from selfplay.report.content import MAX_POINTS, MAX_TEXT, index_of
from selfplay.report.runs import read_run

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def run(played: Callable[[str, int], Path]) -> Path:
    """A real run of two steps, with its report."""
    return played("small", 2)


def unpack(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def index_in(page: str) -> dict[str, Any]:
    found = re.search(r'id="index">([^<]*)<', page)
    assert found
    document: dict[str, Any] = unpack(found[1])
    return document


def texts_in(page: str) -> dict[str, Any]:
    texts: dict[str, Any] = {}
    for packed in re.findall(r'class="piece" data-ids="[^"]*">([^<]*)<', page):
        texts |= unpack(packed)
    return texts


def copy_of(run: Path, folder: Path, name: str = "copy") -> Path:
    return shutil.copytree(run, folder / name)


def test_a_run_ends_with_a_page_that_holds_all_of_it(run: Path) -> None:
    page = (run / "report.html").read_text()
    index, texts = index_in(page), texts_in(page)
    with Corpus(run / "corpus.sqlite", read_only=True) as corpus:
        bugs = {bug.task.bug_id: bug for bug in corpus.bugs()}
    assert bugs and {line["id"] for line in index["bugs"]} == set(bugs)
    for name, bug in bugs.items():
        text = texts[f"small:{name}"]
        assert text["patch"] == bug.task.artifact.bug_patch
        assert text["fail_to_pass"] == list(bug.task.fail_to_pass)[:50]
        assert len(text["attempts"]) == len(
            [e for e in read_run(run).episodes if e["role"] == "solver" and e["bug_id"] == name]
        )
    injections = read_run(run).injections()
    assert [line["id"] for line in index["injections"]] == [e["episode_id"] for e in injections]
    assert all(f"small:{e['episode_id']}" in texts for e in injections)
    assert len(index["rows"]) == 2 and "left out" not in page.split("<script")[0]


def test_equal_runs_make_equal_pages(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    write_report([run], again)
    assert again.read_bytes() == (run / "report.html").read_bytes()


def test_a_page_asks_the_network_for_nothing(run: Path) -> None:
    page = (run / "report.html").read_text()
    own = re.sub(r'<script type="module">.*?</script>', "", page, count=1, flags=re.DOTALL)
    assert "default-src 'none'" in own
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)


def test_text_of_a_model_never_becomes_html(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path, "<b>&")
    evil = "</script><script>document.title='owned'</script>"
    with sqlite3.connect(copy / "corpus.sqlite") as db:
        for bug_id, task in db.execute("SELECT bug_id, task FROM bugs").fetchall():
            document = json.loads(task)
            document["artifact"]["bug_patch"] = evil
            row = (json.dumps(document), evil, bug_id)
            db.execute("UPDATE bugs SET task = ?, function = ? WHERE bug_id = ?", row)
    write_report([copy], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert evil not in page and "<b>&" not in page and "&lt;b&gt;&amp;" in page
    assert any(text["patch"] == evil for key, text in texts_in(page).items() if "bug-" in key)


def test_a_run_that_goes_on_is_shown_as_far_as_it_is(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    (copy / "summary.json").unlink()
    with (copy / "episodes.jsonl").open("ab") as log:
        log.write(b'{"episode_id": "step2/inj')  # being written
    write_report([copy], tmp_path / "page.html")
    assert len(index_in((tmp_path / "page.html").read_text())["rows"]) == 2
    (copy / "corpus.sqlite").unlink()
    (copy / "metrics.jsonl").unlink()
    write_report([copy], tmp_path / "page.html")
    assert index_in((tmp_path / "page.html").read_text())["bugs"] == []


def test_bytes_that_are_not_utf8_and_long_texts(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    lines = [json.loads(line) for line in (copy / "episodes.jsonl").read_text().splitlines()]
    lines[0]["answer"] = "caf\udce9 " + "x" * 3 * MAX_TEXT
    (copy / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report([copy], tmp_path / "page.html")
    text = texts_in((tmp_path / "page.html").read_text())[f"copy:{lines[0]['episode_id']}"]
    assert text["answer"].startswith("caf\udce9 x") and len(text["answer"]) < 1.1 * MAX_TEXT
    assert f"[... {2 * MAX_TEXT + 5} characters ...]" in text["answer"]


def test_ten_thousand_episodes_stay_under_five_megabytes(run: Path, tmp_path: Path) -> None:
    copy = enlarged(run, tmp_path, num_episodes=10_000)
    size = write_report([copy], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert size < 5_000_000
    index, texts = index_in(page), texts_in(page)
    assert len(index["injections"]) + sum(line["attempts"] for line in index["bugs"]) >= 9_000
    small = write_report([copy], tmp_path / "small.html", max_bytes=size - 300_000)
    page = (tmp_path / "small.html").read_text()
    assert small <= size - 300_000 and "are left out to keep this file small" in page
    kept = texts_in(page)
    assert 0 < len(kept) < len(texts) and index_in(page) == index


def test_a_long_run_keeps_its_shape_in_few_points(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    rows = [{"step": n, "learner/loss": float(n % 2), "solver/rare": 1.0} for n in range(3000)]
    del rows[5]["solver/rare"]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = index_of([read_run(copy)])["rows"]
    assert len(shown) <= MAX_POINTS
    assert all(row["learner/loss"] == pytest.approx(0.5, abs=0.01) for row in shown)
    assert "solver/rare" not in shown[0] and shown[1]["solver/rare"] == 1.0


def test_several_runs_are_compared_in_one_page(run: Path, tmp_path: Path) -> None:
    other = copy_of(run, tmp_path, "other")
    write_report([run, other], tmp_path / "page.html")
    index = index_in((tmp_path / "page.html").read_text())
    assert index["runs"] == ["small", "other"]
    assert {row["run"] for row in index["rows"]} == {"small", "other"}
    with pytest.raises(UserError, match="called small"):
        write_report([run, copy_of(run, tmp_path, "small")], tmp_path / "page.html")


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither metrics"):
        write_report([tmp_path], tmp_path / "page.html")
    with pytest.raises(UserError, match="cannot be written"):
        write_report([run], Path("/proc/none/page.html"))
    broken = copy_of(run, tmp_path, "broken")
    (broken / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"summary\.json: not JSON"):
        write_report([broken], tmp_path / "page.html")


def test_a_page_that_cannot_be_drawn_fails_no_run(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = copy_of(run, tmp_path, "broken")
    (broken / "metrics.jsonl").write_text("nonsense\n{}\n")
    report_of_run(broken)
    assert "no report.html was written" in caplog.text


def test_the_command(run: Path, tmp_path: Path) -> None:
    def report(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "selfplay", "report", *words],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip

    done = report(f"run={run}", f"out={tmp_path}/deep/page.html", "json=true")
    document = json.loads(done.stdout)
    assert (
        done.returncode == 0
        and (tmp_path / "deep" / "page.html").stat().st_size == (document["bytes"])
    )
    assert report(f"run={tmp_path}/none").returncode == 2
    assert report("run=[]").returncode == 2
    assert report(f"run={run}", "max_mb=0.5").returncode == 2


def enlarged(run: Path, folder: Path, *, num_episodes: int) -> Path:
    """A run with as many episodes and bugs as a long one: those of `run` with other names."""
    copy = copy_of(run, folder, "long")
    lines = [json.loads(line) for line in (copy / "episodes.jsonl").read_text().splitlines()]
    bugs = sqlite3.connect(copy / "corpus.sqlite")
    columns = [row[1] for row in bugs.execute("PRAGMA table_info(bugs)")]
    stored = [dict(zip(columns, row, strict=True)) for row in bugs.execute("SELECT * FROM bugs")]
    with (copy / "episodes.jsonl").open("w") as log:
        for turn in range(-(-num_episodes // len(lines))):
            for line in lines:
                info = {**line["info"], "step": turn}
                bug_id = f"{line['bug_id']}x{turn}" if line["bug_id"] else None
                name = f"step{turn}/{line['episode_id']}"
                answer = f"{line['answer']} {turn * 7919}"
                other = {"episode_id": name, "bug_id": bug_id, "info": info, "answer": answer}
                log.write(json.dumps({**line, **other, "trajectory": None}) + "\n")
            for bug in stored:
                task = json.loads(bug["task"]) | {"bug_id": f"{bug['bug_id']}x{turn}"}
                row = {**bug, "bug_id": task["bug_id"], "task": json.dumps(task), "step": turn}
                marks = ",".join("?" * len(columns))
                bugs.execute(f"INSERT INTO bugs VALUES ({marks})", [row[c] for c in columns])
    bugs.commit()
    bugs.close()
    return copy
