"""The artifact directory: a round trip, errors that name the file, ids that depend on content."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from selfplay.bugs.artifact import artifact_id, parse_test_files, read_artifact, write_artifact
from selfplay.errors import UserError
from selfplay.types import BugArtifact

ARTIFACT = BugArtifact(
    test_script="#!/bin/sh\npytest\n",
    test_files=("tests/test_a.py", "tests/b c.py"),
    test_parser="print({})\n",
    bug_patch="--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\r\n+\udcff\n",
    weakening_patch="--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n",
    meta={"strategy": "direct"},
)


def test_round_trip(tmp_path: Path) -> None:
    write_artifact(ARTIFACT, tmp_path / "deep" / "bug")
    assert read_artifact(tmp_path / "deep" / "bug") == ARTIFACT
    names = {"test_script.sh", "test_files.txt", "test_parser.py"}
    names |= {"bug_inject.diff", "test_weaken.diff", "meta.json"}
    assert {file.name for file in (tmp_path / "deep" / "bug").iterdir()} == names
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["bug"]


def test_rewriting_replaces_everything(tmp_path: Path) -> None:
    write_artifact(ARTIFACT, tmp_path / "bug")
    other = dataclasses.replace(ARTIFACT, test_script="true\n", meta={})
    write_artifact(other, tmp_path / "bug")
    assert read_artifact(tmp_path / "bug") == other
    assert [p.name for p in tmp_path.iterdir()] == ["bug"]


@pytest.mark.parametrize("name", ["test_script.sh", "test_files.txt", "bug_inject.diff"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_artifact(ARTIFACT, tmp_path / "bug")
    (tmp_path / "bug" / name).unlink()
    with pytest.raises(UserError, match=name):
        read_artifact(tmp_path / "bug")


def test_missing_directory_and_bad_meta(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        read_artifact(tmp_path / "none")
    write_artifact(ARTIFACT, tmp_path / "bug")
    for text in ("{", "[]"):
        (tmp_path / "bug" / "meta.json").write_text(text)
        with pytest.raises(UserError, match=r"meta\.json"):
            read_artifact(tmp_path / "bug")


def test_id_depends_on_the_five_files_alone() -> None:
    known = artifact_id(ARTIFACT)
    assert known == artifact_id(dataclasses.replace(ARTIFACT, meta={}))
    changes = {"test_script": "x", "test_files": ("x",), "test_parser": "x", "bug_patch": "x"}
    others = [dataclasses.replace(ARTIFACT, **{k: v}) for k, v in changes.items()]  # type: ignore[arg-type]
    assert len({known, *(artifact_id(other) for other in others)}) == 5


def test_test_files_text() -> None:
    text = "./tests/a.py\r\n\n  tests/b.py  \ntests/a.py\n"
    assert parse_test_files(text) == ("tests/a.py", "tests/b.py")
