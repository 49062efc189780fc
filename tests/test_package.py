"""What is installed from the wheel works far from any checkout: doctor, a run, a sweep."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.shipped import find_shipped
from tests.test_hydra import TINY

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "constraints.txt")
SDIST = "from setuptools import build_meta; build_meta.build_sdist('dist')"


def test_what_travels_is_found_in_one_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("conf", "repos"):
        assert find_shipped(name) == ROOT / name
        monkeypatch.setenv(f"SELFPLAY_{name.upper()}", str(tmp_path))
        assert find_shipped(name) == tmp_path
        monkeypatch.setenv(f"SELFPLAY_{name.upper()}", str(tmp_path / "none"))
        with pytest.raises(UserError, match=f"SELFPLAY_{name.upper()}"):
            find_shipped(name)


def done(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SELFPLAY"))}
    words = [str(word) for word in command]
    ended = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, f"{words}: {ended.stdout[-1000:]} {ended.stderr[-3000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """(interpreter of a fresh environment, sdist, wheel made from the unpacked sdist)."""
    folder = tmp_path_factory.mktemp("package")
    tree = folder / "tree"
    tree.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, tree / name)
    for name in ("selfplay", "conf", "repos"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    done(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    pip = (python, "-m", "pip", "-q", "--disable-pip-version-check")
    done(*pip, "install", "setuptools>=77", "wheel", cwd=folder)
    done(python, "-c", SDIST, cwd=tree)
    (sdist,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    words = ("wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheels", unpacked)
    done(*pip, *words, cwd=folder)
    (wheel,) = (folder / "wheels").glob("selfplay-*.whl")
    done(*pip, "install", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return python, sdist, wheel


@pytest.mark.slow
def test_both_folders_travel_whole(built: tuple[Path, Path, Path]) -> None:
    _, sdist, wheel = built
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    installed = set(zipfile.ZipFile(wheel).namelist())
    for name in ("conf", "repos"):
        files = [p.relative_to(ROOT) for p in (ROOT / name).rglob("*") if p.is_file()]
        files = [p for p in files if "__pycache__" not in p.parts]
        assert {p.as_posix() for p in files} <= packed
        assert {f"selfplay/data/{p.as_posix()}" for p in files} <= installed


@pytest.mark.slow
def test_the_installed_command_needs_no_checkout(
    built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    python = built[0]
    selfplay = python.with_name("selfplay")
    where = done(python, "-c", "import selfplay; print(selfplay.__file__)", cwd=tmp_path)
    assert where.startswith(str(python.parents[1]))
    words = (*TINY, "runs_dir=runs")
    done(selfplay, "train", *words, cwd=tmp_path)
    done(selfplay, "train", "-m", *words, "seed=1,2", cwd=tmp_path)
    runs = sorted(path.parent.name for path in tmp_path.glob("runs/*/summary.json"))
    assert runs == ["samples", "samples-seed=1", "samples-seed=2"]
    specs = json.loads((tmp_path / "runs" / "samples" / "repos.json").read_text())
    assert str(ROOT) not in json.dumps(specs)
    # torch is large: doctor finds the one that these tests run with
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    (site / "tests_own.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert json.loads(done(selfplay, "doctor", "json=true", cwd=tmp_path))["ready"]
