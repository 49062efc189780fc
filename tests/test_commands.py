"""The commands as a user runs them: exit codes, one-line errors, JSON on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.corpus.suite import read_suite

ROOT = Path(__file__).resolve().parent.parent


def selfplay(
    *words: str, cwd: Path = ROOT, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command with bubblewrap as the sandbox unless the words choose another."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "selfplay", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Exit code, and a last line on stderr that names the problem; never a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("selfplay: ")
    for part in parts:
        assert part in done.stderr


def test_help_names_every_command() -> None:
    from selfplay.cli import COMMANDS

    done = selfplay("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert name in done.stdout
        one = selfplay(*name.split(), "--help")
        assert one.returncode == 0 and "keys:" in one.stdout


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["frobnicate"], ["frobnicate", "doctor"]),
        (["train", "stepz=3"], ["stepz"]),
        (["train", "steps=many"], ["steps"]),
        (["train", "policy=nonsense"], ["policy"]),
        (["validate", "repo=sample-ledger"], ["artifact"]),
        (["repos", "prepare", "repo=no-such", "sandbox=bubblewrap"], ["no-such", "toolz"]),
        (["evaluate", "suite=/no/such.jsonl", "policy=scripted"], ["/no/such.jsonl"]),
        (["export", "run=/no/run", "out=/tmp/x"], ["/no/run"]),
        (
            ["mine", "repo=sample-ledger", "sandbox=bubblewrap"],
            ["sample-ledger", "no git history"],
        ),
        (["train", "experiment=samples", "policy=scripted", "learner=lora"], ["learner=none"]),
        (["inject", "repo=sample-ledger", "policy.model=/no/model", "sandbox=bubblewrap"],
         ["/no/model"]),
        (["train", "experiment=samples", "resume=perhaps"], ["perhaps"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_line(words: list[str], parts: list[str], tmp_path: Path) -> None:
    if words[0] == "train":
        words = [*words, f"runs_dir={tmp_path}", "sandbox=bubblewrap"]
    if words[0] == "inject":
        words = [*words, f"out={tmp_path}"]
    assert_one_line(selfplay(*words), 2, *parts)


def test_two_repositories_of_one_name_are_told_apart_by_nobody(tmp_path: Path) -> None:
    paths = [str(tmp_path / parent / "same") for parent in "ab"]
    for path in paths:
        Path(path).mkdir(parents=True)
    words = [f"repo=[{','.join(paths)}]", "source=procedural", f"out={tmp_path / 'out'}"]
    assert_one_line(selfplay("inject", *words, "sandbox=bubblewrap"), 2, *paths, "called same")


def test_a_run_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = selfplay("train", "experiment=samples", f"runs_dir={file}", "sandbox=bubblewrap")
    assert_one_line(done, 2, str(file))


def test_without_docker_the_docker_sandbox_is_an_infrastructure_fault(tmp_path: Path) -> None:
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = subprocess.run(
        [sys.executable, "-m", "selfplay", "repos", "prepare", "repo=sample-ledger",
         "sandbox=docker"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert_one_line(done, 3)


def test_doctor_reports_json() -> None:
    done = selfplay("doctor", "json=true")
    document = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert {"python", "sandbox bubblewrap", "torch"} <= {row["name"] for row in document["report"]}


@pytest.fixture(scope="module")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with procedural bugs of a vendored sample."""
    out = tmp_path_factory.mktemp("inject")
    done = selfplay(
        "inject", "repo=sample-ledger", "source=procedural", "n=8", f"out={out}",
        "sandbox=bubblewrap", "json=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 8 and any(row["verdict"] == "valid" for row in rows)
    return out


def first_artifact(out: Path) -> Path:
    """The first bug's artifact directory."""
    return sorted((out / "artifacts").iterdir())[0]


def test_validate_and_grade(injected: Path, tmp_path: Path) -> None:
    from selfplay.bugs.patches.layers import reverse_patch

    artifact = first_artifact(injected)
    done = selfplay(
        "validate", "repo=sample-ledger", f"artifact={artifact}", "sandbox=bubblewrap", "json=true"
    )
    report = json.loads(done.stdout)
    assert done.returncode == 0 and report["verdict"] == "valid" and report["fail_to_pass"]
    names = [check["name"] for check in report["checks"]]
    assert names == [
        "test_files", "scope", "forbidden_content", "parser", "script", "bug", "weakening",
        "inverse_mutation", "determinism", "parser_honesty", "gold_resolves",
    ]  # fmt: skip

    bug_patch = (artifact / "bug_inject.diff").read_text()
    (tmp_path / "gold.diff").write_text(reverse_patch(bug_patch))
    (tmp_path / "empty.diff").write_text("")
    for name, code, reward in (("gold", 0, 1), ("empty", 1, -1)):
        done = selfplay(
            "grade", "repo=sample-ledger", f"artifact={artifact}",
            f"patch={tmp_path / name}.diff", "sandbox=bubblewrap", "json=true",
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["reward"] == reward


def test_an_invalid_artifact_and_a_malformed_patch(injected: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    for file in first_artifact(injected).iterdir():
        (artifact / file.name).write_bytes(file.read_bytes())
    (artifact / "test_files.txt").write_text("tests/test_absent.py\n")
    words = ["repo=sample-ledger", "sandbox=bubblewrap"]
    done = selfplay("validate", *words, f"artifact={artifact}", "json=true")
    report = json.loads(done.stdout)
    assert done.returncode == 1 and report["verdict"] == "invalid"
    assert [c["status"] for c in report["checks"]].count("not_run") == 10
    (artifact / "test_files.txt").unlink()
    done = selfplay("validate", *words, f"artifact={artifact}")
    assert_one_line(done, 2, "test_files.txt")


def test_export_verify_and_evaluate(injected: Path, tmp_path: Path) -> None:
    done = selfplay("export", f"run={injected}", "format=swebench", f"out={tmp_path}", "json=true")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_records"] >= 1
    done = selfplay("corpus", "verify", f"out={tmp_path}", "sandbox=bubblewrap", "json=true")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["passed"] == document["num_tasks"] >= 1
    suite = tmp_path / "suite.jsonl"
    line = json.loads(suite.read_text().splitlines()[0])
    line["FAIL_TO_PASS"].append(line["PASS_TO_PASS"].pop())
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**line, "instance_id": "odd"}) + "\n" + suite.read_text())
    words = ("sandbox=bubblewrap", "json=true", "revalidate=true")
    done = selfplay("corpus", "verify", f"out={suite}", *words)
    assert done.returncode == 0 and json.loads(done.stdout)["passed"] == document["num_tasks"]
    kept = tmp_path / "new" / "kept.jsonl"
    done = selfplay("corpus", "verify", f"out={other}", f"kept={kept}", *words)
    assert done.returncode == 1 and "other tests fail a second time" in done.stdout
    assert read_suite(kept) == read_suite(suite)
    for wrong, why in (
        (tmp_path, "is a directory"),
        (other, "is the suite itself"),
        ("/proc/x/y", "cannot"),
    ):
        done = selfplay("corpus", "verify", f"out={other}", f"kept={wrong}", *words)
        assert_one_line(done, 2, f"kept={wrong}: {why}")
    done = selfplay(
        "evaluate", f"suite={tmp_path / 'suite.jsonl'}", "policy=scripted", "num_samples=2",
        "sandbox=bubblewrap", "json=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["num_tasks"] == document["num_tasks"]
    assert 0.0 <= result["pass@1"]["low"] <= result["pass@1"]["mean"] <= result["pass@1"]["high"]
