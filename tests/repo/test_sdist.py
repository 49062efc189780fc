"""Source archives are fetched without running anything of them; byte code tells nothing."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from selfplay.errors import RepoError
from selfplay.repo.discovery.pytest_discovery import unpack
from selfplay.repo.sources.pypi import download_sdist


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of archives that pip's own configuration points to: no network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_nothing_of_a_release_is_run(index: Path, tmp_path: Path) -> None:
    """Neither an old setup.py nor a declared backend, which pip itself would both call."""
    marker = tmp_path / "ran"
    setup = f"open({str(marker)!r}, 'w').close()\n"
    for version, extra in [("1.0", {}), ("1.1", {"p-1.1/pyproject.toml": "[build-system]\n"})]:
        content = archive({f"p-{version}/setup.py": setup, **extra})
        (index / f"p-{version}.tar.gz").write_bytes(content)
        found = download_sdist("p", version, tmp_path / "sdist")
        assert found == tmp_path / "sdist" / f"p-{version}.tar.gz"
        assert found.read_bytes() == content
    assert not marker.exists()


def test_a_wheel_is_no_source(index: Path, tmp_path: Path) -> None:
    (index / "p-1.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(RepoError, match=r"^p==1\.0: source archive not available: ERROR: "):
        download_sdist("p", "1.0", tmp_path / "sdist")


def test_the_wanted_version_or_none(index: Path, tmp_path: Path) -> None:
    (index / "p-1.0.tar.gz").write_bytes(b"one")
    with pytest.raises(RepoError) as caught:
        download_sdist("p", "2.0", tmp_path / "sdist")
    assert "1.0" in str(caught.value) and "\n" not in str(caught.value)


def test_an_archive_must_match_its_hash(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (index / "p-1.0.tar.gz").write_bytes(b"changed on the way")
    digest = hashlib.sha256(b"as it was").hexdigest()
    page = index / "links.html"
    page.write_text(f'<a href="p-1.0.tar.gz#sha256={digest}">p-1.0.tar.gz</a>', encoding="utf-8")
    monkeypatch.setenv("PIP_FIND_LINKS", page.as_uri())
    with pytest.raises(RepoError, match="does not match its sha256"):
        download_sdist("p", "1.0", tmp_path / "sdist")
    assert not (tmp_path / "sdist" / "p-1.0.tar.gz").exists()


def test_byte_code_of_the_tree_is_dropped(tmp_path: Path) -> None:
    """A fix patch could load it in place of a repair: it is the original source."""
    kept = "./opt/selfplay/packages/_pytest/main.cpython-311.pyc"
    names = [kept, "./testbed/src/p.cpython-311.pyc", "testbed/test_p.pyc", "./in/functions.pyc"]
    unpack(archive(dict.fromkeys(names, "code")), tmp_path / "pyc")
    found = [p.relative_to(tmp_path / "pyc") for p in (tmp_path / "pyc").rglob("*") if p.is_file()]
    assert found == [Path(kept)]
