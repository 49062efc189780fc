"""`selfplay compare A B`: paired differences by value, and what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfplay.cli import main
from selfplay.commands.compare import compare


def evaluation(**counts: tuple[int, int]) -> dict[str, Any]:
    rows = [
        {"instance_id": name, "repo": "r", "n": n, "resolved": c} for name, (n, c) in counts.items()
    ]
    return {"num_tasks": len(rows), "tasks": rows}


def write(file: Path, document: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))
    return file


A = evaluation(same=(4, 2), lost=(4, 1), more=(4, 1), found=(4, 0), dead=(0, 0), gone=(4, 4))
B = evaluation(same=(2, 1), lost=(4, 0), more=(4, 4), found=(4, 1), dead=(4, 4), new=(4, 4))


def test_differences_by_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.json", A), write(tmp_path / "b.json", B)
    assert main(["compare", str(first), str(second), "json=true"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["num_tasks"] == 4 and document["not_judged"] == 1
    assert (document["missing_in_b"], document["missing_in_a"]) == (["gone"], ["new"])
    assert document["pass@1"]["a"] == pytest.approx((0.5 + 0.25 + 0.25 + 0) / 4)
    assert document["pass@1"]["b"] == pytest.approx((0.5 + 0 + 1 + 0.25) / 4)
    change = document["pass@1"]["difference"]
    assert change["mean"] == pytest.approx(0.75 / 4) and change["low"] < 0.1875 < change["high"]
    assert "pass@2" in document, "the attempts that every task has"
    assert (document["resolved_only_in_a"], document["resolved_only_in_b"]) == (["lost"], ["found"])
    assert [row["instance_id"] for row in document["changed"]] == ["lost", "found", "more"]


def test_a_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write(tmp_path / "run" / "eval_after.json", A).parent
    file = write(tmp_path / "b.json", B)
    assert main(["compare", f"a={run}", f"b={file}"]) == 0
    out = capsys.readouterr().out
    for text in ("only in A", "only in B", "pass@1", "+18.8", "not in B"):
        assert text in out


def test_an_evaluation_and_itself() -> None:
    rows = {row["instance_id"]: row for row in A["tasks"]}
    document = compare(rows, rows)
    assert document["pass@1"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert not document["changed"] and not document["missing_in_a"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"finished": False}, "not finished"),
        ({"a": 1}, "no result of"),
        ([1], "no result of"),
        (evaluation(other=(1, 1)), "no judged task in common"),
    ],
)
def test_what_cannot_be_compared_is_said(
    document: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write(tmp_path / "a.json", A), write(tmp_path / "b.json", document)
    assert main(["compare", str(first), str(second)]) == 2
    assert said in capsys.readouterr().err
    assert main(["compare", str(first), str(tmp_path / "none.json")]) == 2
    assert main(["compare", str(first)]) == 2
    assert "missing b=" in capsys.readouterr().err


def test_p_gold_is_compared_where_both_know_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """+0.1 and +0.3 of two repositories; attempts are not needed. A commit is its project's."""

    def weighed(**values: float | None) -> dict[str, Any]:
        rows = [
            {"instance_id": name, "repo": f"{name[0]}@{'0' * 12}", "n": 0, "resolved": 0}
            | ({} if value is None else {"p_gold": value})
            for name, value in values.items()
        ]
        return {"num_tasks": len(rows), "tasks": rows}

    first = write(tmp_path / "a.json", weighed(a1=0.1, a2=0.2, b1=0.3, c=None))
    second = write(tmp_path / "b.json", weighed(a1=0.2, a2=0.3, b1=0.6, c=0.9))
    assert main(["compare", str(first), str(second), "json=true"]) == 0
    document = json.loads(capsys.readouterr().out)
    gold = document["p_gold"]
    assert gold["num_tasks"] == 3 and document["num_tasks"] == 0
    assert (gold["a"], gold["b"]) == (pytest.approx(0.2), pytest.approx(1.1 / 3))
    assert gold["difference"]["mean"] == pytest.approx(0.5 / 3)
    eight = [1 - (1 - p) ** 8 for p in (0.1, 0.2, 0.3)]
    assert document["p_gold@8"]["a"] == pytest.approx(sum(eight) / 3)
    assert gold["difference_by_repo"]["high"] == pytest.approx(0.3), "b alone, drawn twice"
    assert main(["compare", str(first), str(second)]) == 0
    out = capsys.readouterr().out
    assert "p(gold)@8" in out and "+16.67" in out and "pass@" not in out
