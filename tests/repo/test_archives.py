"""Archives of strangers: nothing leaves the target, nothing that git would execute comes in."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from selfplay.errors import RepoError
from selfplay.repo.sources import archives
from selfplay.repo.sources.archives import drop_outward_links, extract

FILE, LINK, HARD, FIFO = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE


def tar_of(folder: Path, *members: tuple[str, bytes, str]) -> Path:
    """A .tar.gz of (name, type, content or link target)."""
    path = folder / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, data = kind, b""
            if kind == FILE:
                data = text.encode()
                info.size = len(data)
            else:
                info.linkname = text
            tar.addfile(info, io.BytesIO(data))
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def test_the_top_directory_is_stripped(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path, ("p-1/a.py", FILE, "x"), ("p-1/sub/b.py", FILE, "y"), ("p-1/c", LINK, "a.py")
    )
    extract(archive, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.py", "c", "sub/b.py"]
    assert (tmp_path / "out" / "c").read_text() == "x"


def test_without_a_top_directory(tmp_path: Path) -> None:
    extract(tar_of(tmp_path, ("a.py", FILE, "x"), ("b/c.py", FILE, "y")), tmp_path / "out")
    assert names(tmp_path / "out") == ["a.py", "b/c.py"]


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", FILE, "x")],
        [("p/../../evil", FILE, "x")],
        [("/tmp/evil-of-selfplay", FILE, "x")],
        [("p/a", LINK, "/etc/passwd")],
        [("p/a", LINK, "../../evil")],
        [("p/a", LINK, "../.."), ("p/a/evil", FILE, "x")],
        [("p/a", HARD, "../../evil")],
        [("p/a", HARD, "/etc/passwd")],
        [("p/a", FIFO, "")],
    ],
    ids=lambda members: " ".join(f"{name}={text}" for name, _, text in members),
)
def test_hostile_tars_are_refused(members: list[tuple[str, bytes, str]], tmp_path: Path) -> None:
    inner = tmp_path / "deep" / "inner"
    inner.mkdir(parents=True)
    archive = tar_of(inner, *members)
    with pytest.raises(RepoError, match=r"a\.tar\.gz: cannot be unpacked"):
        extract(archive, inner / "out")
    assert names(tmp_path) == ["deep/inner/a.tar.gz"]
    assert not Path("/tmp/evil-of-selfplay").exists()


def test_git_folders_are_left_out(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path,
        ("p/a.py", FILE, "x"),
        ("p/.git/config", FILE, "[core]\nfsmonitor = touch /tmp/x"),
        ("p/sub/.GIT/config", FILE, "y"),
        ("p/.git", FILE, "gitdir: elsewhere"),
        ("p/.gitignore", FILE, "z"),
    )
    extract(archive, tmp_path / "out")
    assert names(tmp_path / "out") == [".gitignore", "a.py"]


def test_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("p/a.py", "x")
        file.writestr("p/.git/config", "y")
    extract(path, tmp_path / "out")
    assert names(tmp_path / "out") == ["a.py"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "p\\..\\evil", "link"])
def test_hostile_zips_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo(name)
        if name == "link":
            info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    with pytest.raises(RepoError, match="cannot be unpacked"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert names(tmp_path) == ["a.zip"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_what_is_no_archive(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(RepoError, match="cannot be unpacked"):
        extract(tmp_path / name, tmp_path / "out")


def test_archives_that_grow_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    archive = tar_of(tmp_path, *((f"p/{i}", FILE, "x") for i in range(4)))
    with pytest.raises(RepoError, match="more than 3 files"):
        extract(archive, tmp_path / "out")


def test_links_out_of_a_tree_are_dropped(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_text("x")
    for name, target in {
        "sub/up": "../a",
        "dangling": "nothing",
        "out": "../secret",
        "absolute": str(tree / "a"),
        "etc": "/etc",
        "loop": "loop",
    }.items():
        (tree / name).symlink_to(target)
    drop_outward_links(tree)
    assert {p.name for p in tree.rglob("*") if p.is_symlink()} <= {"up", "dangling", "loop"}
    assert (tree / "sub" / "up").read_text() == "x"
