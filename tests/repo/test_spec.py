"""Specifications: strict, and errors that name file, key, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.repo.spec import (
    GitSource,
    LocalSource,
    PypiSource,
    find_repos_dir,
    list_specs,
    load_spec,
)


def test_every_shipped_specification_is_read() -> None:
    specs = {spec.name: spec for spec in list_specs(find_repos_dir())}
    assert {"sample-ledger", "sample-textkit", "toolz"} <= set(specs)
    assert all(spec.license for spec in specs.values())
    local = specs["sample-ledger"].source
    assert isinstance(local, LocalSource) and Path(local.path, "ledger").is_dir()


def test_fields(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        'source: {pypi: {project: toolz, version: "1.0.0", history: ["0.11.2"]}}\n'
        'install: ["hypothesis>=6"]\nlicense: MIT\n'
    )
    spec = load_spec("a", tmp_path)
    assert spec.source == PypiSource(project="toolz", version="1.0.0", history=("0.11.2",))
    assert (spec.name, spec.install, spec.license) == ("a", ("hypothesis>=6",), "MIT")
    (tmp_path / "b.yaml").write_text(
        f"source: {{git: {{url: 'https://h/r', commit: {'ab' * 20}}}}}"
    )
    assert load_spec("b", tmp_path).source == GitSource(url="https://h/r", commit="ab" * 20)


PYPI = "source: {pypi: {project: toolz, version: '1.0'}}\n"
WRONG = {
    "source: [": "cannot be read as YAML",
    "- a": "must be a mapping with the keys source, install, license, tests",
    PYPI + "test: x": "unknown key 'test'; the keys are source, install, license, tests",
    PYPI + "tests: x": "tests: 'x' is not a list; write [x]",
    "license: MIT": "source: None must have exactly one of the keys pypi, git, local",
    "source: {svn: {url: x}}": "source: unknown kind 'svn'; use one of pypi, git, local",
    "source: {pypi: toolz}": "source.pypi: 'toolz' must be a mapping of project, version, history",
    "source: {pypi: {project: toolz}}": "source.pypi.version is missing; add it",
    "source: {pypi: {project: t, version: 1.10}}": "source.pypi.version: 1.1 is not text; put it",
    "source: {pypi: {project: t, version: '>=1'}}": "'>=1' is not one released version",
    "source: {pypi: {project: --pre, version: '1'}}": "'--pre' is not the name of a project",
    "source: {pypi: {project: t, version: '1', tag: x}}": "unknown key 'tag'; the keys are project",
    "source: {pypi: {project: t, version: '1', history: '0'}}": "'0' is not a list; write [0]",
    "source: {pypi: {project: t, version: '1', history: ['-e']}}": "history: '-e' is not one",
    "source: {git: {url: u, commit: main}}": "'main' is not a full commit id of 40 hexadecimal",
    "source: {git: {url: --upload-pack=x, commit: main}}": "is not a URL that git can clone",
    "source: {local: {path: nowhere}}": "source.local.path: nowhere: no directory at",
    PYPI + "install: pytest": "install: 'pytest' is not a list; write [pytest]",
    PYPI + "install: [1.5]": "install: 1.5 is not text; put it in quotes",
    PYPI + "install: ['--index-url=x']": "'--index-url=x' is an option of pip; list requirements",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_wrong_specifications(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_spec("wrong", tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}/wrong.yaml: ") and message in said and "\n" not in said


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_bytes(b"license: \xff\n")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        load_spec("wrong", tmp_path)


@pytest.mark.parametrize("name", ["tolz", "/no/such/place", "../a", ""])
def test_unknown_repositories_list_the_known_ones(name: str, tmp_path: Path) -> None:
    (tmp_path / "repos").mkdir()
    (tmp_path / "repos" / "toolz.yaml").write_text(PYPI)
    (tmp_path / "a.yaml").write_text(PYPI)
    with pytest.raises(UserError, match=r"known: toolz$"):
        load_spec(name, tmp_path / "repos")


def test_a_path_is_a_local_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "my project"
    project.mkdir()
    spec = load_spec(str(project), tmp_path)
    assert spec.name == "my-project" and spec.source == LocalSource(path=str(project))
    monkeypatch.chdir(project)
    assert load_spec(".", tmp_path) == spec


def test_where_specifications_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFPLAY_REPOS", str(tmp_path))
    assert find_repos_dir() == tmp_path
    monkeypatch.setenv("SELFPLAY_REPOS", str(tmp_path / "none"))
    with pytest.raises(UserError, match="SELFPLAY_REPOS"):
        find_repos_dir()
