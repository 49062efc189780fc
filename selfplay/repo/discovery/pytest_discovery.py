"""Discovery of suites that pytest runs: two runs of all of it, under the settings that suit it."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selfplay.errors import RepoError
from selfplay.repo.discovery.profile import RepoProfile, TestInfo
from selfplay.repo.discovery.pytest_config import modules_in
from selfplay.repo.discovery.pytest_run import Suite, SuiteTooLong
from selfplay.repo.discovery.pytest_settings import PytestSettings, attempts, settings_record
from selfplay.repo.discovery.test_names import USUAL_NAMES, TestNames, test_names
from selfplay.repo.sources.archives import unpack_tar
from selfplay.repo.spec import WHOLE, SuitePart
from selfplay.sandbox.base import WORKDIR, Environment, Sandbox

NOTHING = "none was collected: does this source hold the tests? Some releases leave them out"
SAME_NAME = "use a unique basename for your test file modules"
"""Ends pytest's complaint of two test files that would be one module."""
SAVE_BYTE_CODE = '"$@"; code=$?; tar -C /tmp/pyc -cf /out/pyc.tar . 2>/dev/null; exit $code'


def has_python(tree: Path) -> bool:
    """Whether there is anything that pytest could collect."""
    return any(modules_in(tree))


def discover_pytest(
    environment: Environment, sandbox: Sandbox, byte_code: Path, last: bool, part: SuitePart = WHOLE
) -> RepoProfile | None:
    """Run the suite twice, once with coverage and once plainly under another hash seed, each file
    named, as later runs name theirs: what needs more than that is not kept.

    Where the repository's own settings lead to no passing test, other `pytest_settings` are tried.
    The second run's byte code of the standard library and the installed packages is unpacked into
    `byte_code`. None where no test passes and another framework may still be asked.
    """
    suite = Suite(environment, sandbox, part)
    first = _first_run(suite)
    if not last and not num_passed(first):
        return None
    second, plain = suite.run(
        {
            "PYTHONHASHSEED": "1",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": "/tmp/pyc",
        },
        ("sh", "-c", SAVE_BYTE_CODE, "sh"),
        _files_of(first, environment.tree),
    )
    unpack(plain.files.get("pyc.tar", b""), byte_code)
    return replace(
        profile_of(first, second, suite.left_out, test_names(environment.tree)),
        variables=suite.variables,
        settings=settings_record(environment.tree, suite.settings),
    )


def _first_run(suite: Suite) -> dict[str, Any]:
    """The run with coverage in the settings under which most tests pass; the suite keeps them.

    The project's own settings stand where at least half of the tests pass under them. Raises the
    first `RepoError` where no settings lead to the end of a run.
    """
    best: tuple[int, PytestSettings, dict[str, Any]] | None = None
    trouble: RepoError | None = None
    for settings in attempts(suite.environment.tree):
        enough = best is not None and best[0] and _is_enough(best[2])
        if enough or (settings.options and best is not None and best[0]):
            break
        try:
            found, settings = _run_accepted(suite, settings)
        except SuiteTooLong:
            raise  # no other settings make it shorter
        except RepoError as error:
            trouble = trouble or error
            continue
        if best is None or num_passed(found) > best[0]:
            best = num_passed(found), settings, found
    if best is None:
        assert trouble is not None
        raise trouble
    if trouble is not None and not best[2]["results"]:
        raise trouble
    suite.settings = best[1].guarded() if best[2].get("own_words") else best[1]
    return best[2]


def _is_enough(document: Mapping[str, Any]) -> bool:
    """Whether other settings need not be tried: half of the tests pass, or there is no time."""
    return bool(document["unreached"]) or 2 * num_passed(document) >= len(document["results"])


def _run_accepted(suite: Suite, settings: PytestSettings) -> tuple[dict[str, Any], PytestSettings]:
    """A guarded run, again without the kept options that pytest does not know; where test files
    share a name, in the import mode that allows it, if more tests pass then."""
    while True:
        try:
            found, settings = _run_guarded(suite, settings)
            break
        except RepoError as error:
            fewer = settings.accepted(str(error))
            if fewer == settings:
                raise
            settings = fewer
    if any(SAME_NAME in entry["why"] for entry in found["results"].values()):
        with contextlib.suppress(RepoError):
            again, other = _run_guarded(suite, settings.by_path())
            if num_passed(again) > num_passed(found):
                return again, other
    return found, settings


def _run_guarded(suite: Suite, settings: PytestSettings) -> tuple[dict[str, Any], PytestSettings]:
    """A run with coverage; once more behind `repo.guard` where files end the interpreter."""
    suite.settings = settings
    found, _ = suite.run({"SELFPLAY_COVERAGE": "1"})
    if found.get("ended"):
        suite.settings = settings.guarded()
        again, _ = suite.run({"SELFPLAY_COVERAGE": "1"})
        if num_passed(again) > num_passed(found):
            return again, suite.settings
    return found, settings


def _files_of(document: Mapping[str, Any], tree: Path) -> list[str]:
    """Files of the tree that hold usable tests, in the order in which a profile lists them."""
    names = test_names(tree)
    entries = document["results"].items()
    files = {e["file"] for test, e in entries if not _unusable(test, e, names)}
    return sorted(file for file in files if not file.startswith("/") and (tree / file).is_file())


def num_passed(document: Mapping[str, Any]) -> int:
    """How many tests of a probe's document passed."""
    return sum(_outcome(entry) == "passed" for entry in document["results"].values())


def profile_of(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    left_out: Mapping[str, str],
    names: TestNames = USUAL_NAMES,
) -> RepoProfile:
    """Merge both runs' probe documents into a profile."""
    tests: dict[str, TestInfo] = {}
    excluded = dict(left_out)
    seconds: dict[str, float] = {}
    names_of = first.get("functions", ())
    unreached = {**first.get("unreached", {}), **second.get("unreached", {})}
    excluded.update((file, f"not reached: {why}") for file, why in unreached.items())
    for test, entry in first["results"].items():
        if test in left_out or entry["file"] in unreached:
            continue
        other = second["results"].get(test)
        mine, theirs = _outcome(entry), _outcome(other) if other else "missing"
        file = entry["file"]
        if other:
            seconds[file] = seconds.get(file, 0.0) + other["seconds"]
        odd = _unusable(test, entry, names)
        if mine == "passed" and theirs in ("passed", "missing") and odd:
            excluded[test] = odd
        elif mine == theirs == "passed":
            tests[test] = TestInfo(
                file=file,
                duration_s=round(other["seconds"] if other else 0.0, 4),
                functions=frozenset(names_of[i] for i in first["reached"].get(test, ())),
            )
        elif mine == theirs == "skipped":
            excluded[test] = "skipped"
        elif mine == theirs:
            excluded[test] = f"failing: {entry['why']}"
        else:
            excluded[test] = f"flaky: {mine}, then {theirs}"
    if not tests:
        why = next(iter(excluded.values()), NOTHING)
        raise RepoError(f"discovery: no passing test found (the first: {why})")
    files = {info.file for info in tests.values()}
    return RepoProfile(
        runner="pytest",
        test_files={file: round(seconds[file], 4) for file in sorted(files)},
        tests=tests,
        excluded=excluded,
    )


def _unusable(test: str, entry: Mapping[str, Any], names: TestNames) -> str:
    """Why a test that passes can judge no bug, "" when it can."""
    file: str = entry["file"]
    if test != file and not test.startswith(f"{file}::"):
        return "odd id: it does not begin with the file that holds the test"
    if entry.get("kind") == "DoctestItem" and file.endswith(".py") and not names(file):
        return "doctest in a source file: a bug there would change the test with the code"
    return ""


def _outcome(entry: Mapping[str, Any]) -> str:
    """passed only when every phase passed and nothing was expected to fail."""
    outcomes = entry["outcomes"]
    if any(outcome == "failed" for _, outcome, _ in outcomes):
        return "failed"
    if any(outcome == "skipped" or xfail for _, outcome, xfail in outcomes):
        return "skipped"
    called = any(when == "call" and outcome == "passed" for when, outcome, _ in outcomes)
    return "passed" if called else "skipped"


def unpack(archive: bytes, target: Path) -> None:
    """Unpack the byte code that a sandbox left behind: plain files and directories only.

    The tree's own is left out: every later run sees `target`, and byte code of the original source
    is the answer to every bug (and of the oracle tests, which a solver's tree lacks).
    """
    target.mkdir(parents=True, exist_ok=True)
    if not archive:
        return
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        unpack_tar(tar, target, _packages_only(tar))


def _packages_only(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        top = parts[0] if parts else ""
        if (member.isfile() or member.isdir()) and top not in (WORKDIR.strip("/"), "in", "tmp"):
            yield member
