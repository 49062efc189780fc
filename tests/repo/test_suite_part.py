"""Suites that take too long: a part of them by the user's choice, or as far as the time goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.errors import RepoError, UserError
from selfplay.export.sources import environment_of
from selfplay.repo.discovery import pytest_run
from selfplay.repo.discovery.discover import discover
from selfplay.repo.prepare import prepare, spec_digest
from selfplay.repo.spec import LocalSource, RepoSpec, SuitePart, load_spec, spec_from
from selfplay.sandbox.base import Sandbox
from tests.repo.conftest import MakeEnvironment

TREE = {
    "calc.py": "def add(a, b):\n    return a + b\n",
    "tests/a/test_a.py": "from calc import add\n\ndef test_a():\n    assert add(1, 1) == 2\n",
    "tests/b/test_b.py": "from calc import add\n\ndef test_b():\n    assert add(1, 2) == 3\n",
    "t/a.t": "1..1\nok 1\n",
}
LOCAL = "source: {{local: {{path: {}}}}}\n"
REMEDY = r"set tests: \[FOLDER_OR_FILE, ...\] or suite_timeout_s: SECONDS \(now {}\)"


def test_the_keys_of_a_specification(tmp_path: Path) -> None:
    text = LOCAL.format(tmp_path) + "tests: [tests/a, tests/test_x.py]\nsuite_timeout_s: 1800\n"
    (tmp_path / "big.yaml").write_text(text)
    spec = load_spec("big", tmp_path)
    assert spec.part == SuitePart(paths=("tests/a", "tests/test_x.py"), timeout_s=1800.0)
    told = spec_from("big", environment_of(spec, {}))  # as a suite of bugs tells it
    assert told.part == spec.part
    whole = RepoSpec(name="big", source=spec.source)
    assert len({spec_digest(spec), spec_digest(whole)}) == 2


@pytest.mark.parametrize("value", ["-k", "/etc", "../other", "tests/test_a.py::test_a", "a b"])
def test_what_is_no_part(value: str, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text(LOCAL.format(tmp_path) + f"tests: ['{value}']\n")
    with pytest.raises(UserError, match="is no file or folder of the source; write its path"):
        load_spec("big", tmp_path)


@pytest.mark.parametrize("value", ["soon", "0", "true", ".nan"])
def test_what_is_no_time(value: str, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text(LOCAL.format(tmp_path) + f"suite_timeout_s: {value}\n")
    with pytest.raises(UserError, match="is not a number of seconds from 1 to"):
        load_spec("big", tmp_path)


def test_a_part_that_the_source_lacks(sandbox: Sandbox, place: Path, tmp_path: Path) -> None:
    (tmp_path / "calc.py").write_text(TREE["calc.py"])
    source = LocalSource(path=str(tmp_path))
    spec = RepoSpec(name="big", source=source, tests=("tests/c",))
    with pytest.raises(UserError, match="big: tests: 'tests/c' is not in the source"):
        prepare(spec, sandbox, cache_dir=place)


def test_a_part_is_all_that_is_run(
    make_environment: MakeEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    """At another commit, where a path may be missing, the others count."""
    part = SuitePart(paths=("tests/b", "tests/gone"))
    found = discover(make_environment(TREE), sandbox, tmp_path, part)
    assert set(found.tests) == {"tests/b/test_b.py::test_b"} and not found.excluded
    assert found.tests_reaching("calc.py", "add") == ("tests/b/test_b.py::test_b",)


HANGS = "\ntime.sleep(30)\n"
SLOW = "import time\nimport calc\n\ndef test_{0}_1():\n    assert calc.add(1, 1) == 2\n"
SLEEPS = "".join(f"\ndef test_{{0}}_{i}():\n    time.sleep(0.9)\n" for i in range(2, 7))


def test_a_suite_is_kept_as_far_as_its_time_goes(
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whole files only: one that was begun and not ended is left out, too."""
    files = {"calc.py": TREE["calc.py"], "test_a.py": SLOW.format("a")}
    for name in "bc":
        files[f"test_{name}.py"] = (SLOW + SLEEPS).format(name)
    part = SuitePart(timeout_s=2.0)
    found = discover(make_environment(files), sandbox, tmp_path, part)
    assert set(found.tests) == {"test_a.py::test_a_1"}
    assert found.tests_reaching("calc.py", "add") == ("test_a.py::test_a_1",)
    why = "not reached: the tests before it took 2 s"
    assert found.excluded == {"test_b.py": why, "test_c.py": why}
    assert "2 of 3 test files were not run to their end" in caplog.text
    assert "suite_timeout_s: SECONDS (now 2)" in caplog.text


@pytest.mark.parametrize(
    ("text", "grace_s"),
    [(SLEEPS.format("a"), 300), (HANGS, 1)],
    ids=["its first file", "its collection"],
)
def test_too_long_says_what_to_set(
    text: str,
    grace_s: float,
    make_environment: MakeEnvironment,
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once: no other settings of pytest make a suite shorter."""
    monkeypatch.setattr(pytest_run, "GRACE_S", grace_s)
    runs: list[object] = []

    class Counting:
        name = sandbox.name
        close = sandbox.close

        def run(self, job):  # type: ignore[no-untyped-def]
            runs.append(job)
            return sandbox.run(job)

    files = {"calc.py": TREE["calc.py"], "test_a.py": SLOW.format("a") + text}
    with pytest.raises(RepoError, match=REMEDY.format(2)):
        discover(make_environment(files), Counting(), tmp_path, SuitePart(timeout_s=2.0))
    assert len(runs) == 1
