"""The pure parts: paths of layers, removal of hostile trees, the filter's bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.errors import PatchError, SandboxError
from selfplay.sandbox.base import Quota
from selfplay.sandbox.bubblewrap.launch import memory_excess
from selfplay.sandbox.bubblewrap.seccomp import filter_program
from selfplay.sandbox.collect import out_excess
from selfplay.sandbox.scratch import (
    check_relative,
    covered_paths,
    deleted_paths,
    remove_tree,
    write_layer,
)
from selfplay.types import FileChange, Layer

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
LAYERS = st.dictionaries(PATHS, st.one_of(st.none(), st.binary(max_size=3))).map(
    lambda found: {path: FileChange(content=content) for path, content in found.items()}
)


def is_consistent(layer: Layer) -> bool:
    """No written file lies below another written file."""
    written = {path for path, change in layer.items() if change.content is not None}
    return not any(str(p) in written for path in written for p in PurePosixPath(path).parents)


@given(LAYERS.filter(is_consistent))
def test_deleting_never_takes_a_written_file_away(layer: Layer) -> None:
    written = [path for path, change in layer.items() if change.content is not None]
    for gone in deleted_paths(layer):
        assert layer[gone].content is None
        assert not any(PurePosixPath(path).is_relative_to(gone) for path in written)


@pytest.mark.parametrize("path", ["", "/", "/a", "..", "a/../b", "a/..", "a\0b"])
def test_paths_that_leave_are_refused(path: str) -> None:
    with pytest.raises(PatchError, match="leaves"):
        check_relative(path)


def test_names_that_no_file_can_have_are_refused() -> None:
    with pytest.raises(PatchError, match="no name"):
        check_relative("a/\ud800")


@pytest.mark.parametrize("path", ["a", "a/b", "..a", "a..", "...", "-rf", "a b;c"])
def test_plain_paths_are_kept(path: str) -> None:
    assert check_relative(path) == path


def test_layers_have_times_of_their_own(tmp_path: Path) -> None:
    """Whole seconds, equal for equal content, other for other content, and long past."""
    times = []
    for number, content in enumerate([b"x = 1\n", b"x = 2\n", b"x = 1\n"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_layer({"a.py": FileChange(content=content)}, folder)
        times.append((folder / "a.py").stat().st_mtime_ns)
    assert times[0] == times[2] != times[1]
    assert all(time % 1_000_000_000 == 0 for time in times)
    assert all(1_000_000_000 <= time // 1_000_000_000 < 1_500_000_000 for time in times)


def test_covered_paths(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("folder")
    new = FileChange(content=b"")
    layer = {
        "folder": new,
        "file/inside": new,
        "link/inside": new,
        "file": FileChange(content=None),
    }
    assert covered_paths(tmp_path, layer) == ["folder", "file", "link"]
    assert covered_paths(tmp_path, {"folder/new": new, "file": new}) == []


def test_deleted_paths() -> None:
    gone, kept = FileChange(content=None), FileChange(content=b"")
    layer = {"a": gone, "b": gone, "b/c": kept, "d": kept, "d/e": gone, "f/g": gone}
    assert deleted_paths(layer) == ["a", "f/g"]


def test_remove_tree_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").touch()
    hostile = tmp_path / "hostile"
    (hostile / "deep").mkdir(parents=True)
    (hostile / "link").symlink_to(tmp_path / "keep")
    (hostile / "deep" / "link").symlink_to(tmp_path / "keep" / "file")
    (hostile / "deep").chmod(0)
    hostile.chmod(0)
    remove_tree(hostile)
    assert not hostile.exists()
    assert (tmp_path / "keep" / "file").exists()


def test_remove_tree_reaches_any_depth(tmp_path: Path) -> None:
    """Python's own rmtree recurses: a job could stop every later start of the harness with it."""
    program = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\n"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    remove_tree(tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_what_lies_in_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = Quota(output=1 << 20, file_size=1 << 20)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(bytes(1 << 19))
    (tmp_path / "link").symlink_to("/usr")
    assert out_excess(tmp_path, quota) == ""
    (tmp_path / "other").write_bytes(bytes(1 << 20))
    assert "too many bytes" in out_excess(tmp_path, quota)
    monkeypatch.setattr("selfplay.sandbox.collect.MIN_FREE", 1 << 60)
    with pytest.raises(SandboxError, match="free on the disk"):
        out_excess(tmp_path, quota)


def test_a_sandbox_that_has_not_come_up_is_not_measured() -> None:
    """Until bwrap has changed its root, /proc/PID/root is the disk of this machine."""
    assert memory_excess(Path("/proc/self/root"), Quota(memory=1)) == ""
    assert memory_excess(Path("/proc/self/nothing"), Quota(memory=1)) == ""
    assert "too many bytes" in memory_excess(Path("/proc/self/root/dev/shm"), Quota(memory=-1))


def test_seccomp_program_is_whole() -> None:
    for machine in ("x86_64", "aarch64"):
        program = filter_program(machine)
        assert program is not None
        assert len(program) % 8 == 0
        assert program[-8:] == bytes.fromhex("060000000000ff7f")
    assert filter_program("riscv64") is None
