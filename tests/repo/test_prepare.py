"""The vendored samples, prepared for real in bubblewrap."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.errors import RepoError, UserError
from selfplay.repo.dependencies.pip import read_lock
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.prepare import PreparedRepo, prepare, spec_digest
from selfplay.repo.spec import LocalSource, RepoSpec, find_repos_dir, load_spec
from selfplay.sandbox.base import Job, RunResult, Sandbox
from tests.repo.conftest import Leftovers

pytestmark = pytest.mark.slow


class NoSandbox:
    """Stands where nothing may be run."""

    name = "none"

    def run(self, job: Job) -> RunResult:
        raise AssertionError(f"was run: {job.argv}")

    def close(self) -> None:
        pass


def test_ledger_is_discovered(ledger: PreparedRepo) -> None:
    profile = ledger.profile
    assert profile.runner == "pytest"
    assert list(profile.test_files) == [
        "tests/test_book.py", "tests/test_money.py", "tests/test_report.py",
    ]  # fmt: skip
    assert len(profile.tests) >= 25 and not profile.excluded
    assert sum(info.duration_s for info in profile.tests.values()) < 0.5


def test_the_profile_maps_tests_to_functions(ledger: PreparedRepo) -> None:
    profile = ledger.profile
    reaching = profile.tests_reaching("ledger/money.py", "split_cents")
    assert "tests/test_money.py::test_split_adds_up" in reaching
    assert {profile.tests[test].file for test in reaching} == {"tests/test_money.py"}
    undo = profile.tests["tests/test_book.py::test_undo"].functions
    assert {"ledger/book.py::Book.undo", "ledger/book.py::Book.post"} <= undo
    assert "ledger/report.py::table" not in undo
    assert profile.tests_reaching("ledger/report.py", "nothing") == ()


def test_every_function_of_a_sample_is_reached(ledger: PreparedRepo) -> None:
    assert len(ledger.functions) >= 15
    assert {f.path.split("/")[0] for f in ledger.functions} == {"ledger"}
    for function in ledger.functions:
        assert ledger.profile.tests_reaching(function.path, function.qualname), function
        lines = ledger.source(function.path).splitlines()
        assert "def " in lines[function.start_line - 1]


def test_profile_survives_json(ledger: PreparedRepo) -> None:
    assert RepoProfile.from_json(ledger.profile.to_json()) == ledger.profile


def test_leftovers_of_a_kill_are_built_anew(ledger: PreparedRepo, leftovers: Leftovers) -> None:
    assert ledger.environment.tree == leftovers.target / "tree"
    assert not leftovers.partial.exists()
    assert not (leftovers.target / "tree" / "half.py").exists()
    done = json.loads((leftovers.target / "done.json").read_text(encoding="utf-8"))
    assert done["digest"] == ledger.environment.digest


def test_a_second_prepare_is_cached(ledger: PreparedRepo, place: Path) -> None:
    again = prepare(ledger.spec, NoSandbox(), cache_dir=place)
    assert again.environment == ledger.environment
    assert again.profile == ledger.profile and again.functions == ledger.functions


def test_two_processes_at_once(textkit_trees: list[str], place: Path) -> None:
    first, second = textkit_trees
    assert first == second and Path(first).is_dir()
    assert not list((place / "repos").glob("*.tmp"))
    spec = load_spec("sample-textkit", find_repos_dir())
    prepared = prepare(spec, NoSandbox(), cache_dir=place)
    assert len(prepared.profile.tests) >= 25 and not prepared.profile.excluded
    assert "tests/test_words.py::DistanceTest::test_known" in prepared.profile.tests_reaching(
        "textkit/words.py", "distance"
    )


def test_digest_depends_on_content_not_on_place(tmp_path: Path) -> None:
    digests = []
    for name, text in [("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.py").write_text(text, encoding="utf-8")
        source = LocalSource(path=str(tmp_path / name))
        digests.append(spec_digest(RepoSpec(name="same", source=source)))
    assert digests[0] == digests[1] != digests[2]
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "m.pyc").write_bytes(b"x")
    source = LocalSource(path=str(tmp_path / "a"))
    assert spec_digest(RepoSpec(name="same", source=source)) == digests[0]


def test_packages_that_pip_cannot_get(
    ledger_spec: RepoSpec, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wanted = replace(ledger_spec, install=("no-such-package-of-selfplay",))
    with pytest.raises(RepoError) as caught:
        prepare(wanted, NoSandbox(), cache_dir=place)
    message = str(caught.value)
    assert message.startswith("sample-ledger: cannot install pytest") and "\n" not in message
    assert "ERROR: No matching distribution found for" in message


def test_a_directory_that_is_gone(place: Path, sandbox: Sandbox) -> None:
    spec = RepoSpec(name="gone", source=LocalSource(path="/no/such/place"))
    with pytest.raises(UserError, match="/no/such/place: no such directory"):
        prepare(spec, sandbox, cache_dir=place)


def test_versions_are_recorded(ledger: PreparedRepo) -> None:
    lock = (ledger.environment.tree.parent / "requirements.lock").read_text(encoding="utf-8")
    lines = read_lock(lock)
    assert [line for line in lines if line.startswith("pytest==")]
    assert spec_digest(replace(ledger.spec, lock=lines)) != spec_digest(ledger.spec)
