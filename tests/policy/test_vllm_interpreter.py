"""The interpreter that has vLLM is another one: what of our environment and folder it meets."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from selfplay.errors import UserError
from selfplay.policy.vllm.interpreter import environment_of, find_python, installed_version
from selfplay.policy.vllm.server import Launch


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """An environment of its own, not activated, which has vLLM by what its metadata say."""
    folder = tmp_path / "other"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    add_distribution(packages, "vllm", "0.32.0")
    return folder / "bin" / "python"


def add_distribution(packages: Path, name: str, version: str) -> None:
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_modules_of_the_working_directory_are_not_taken_for_its_own(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of vLLM, or a file that is called like a module of the standard library."""
    add_distribution(tmp_path / "here", "vllm", "0.1.0")
    (tmp_path / "here" / "email.py").write_text("raise RuntimeError('of the working directory')\n")
    monkeypatch.chdir(tmp_path / "here")
    assert find_python(str(other)) == str(other)
    words = [str(other), "-c", "import email; print(email.__file__)"]
    said = subprocess.run(words, env=Launch(python=str(other)).environment(), capture_output=True)
    assert said.stdout and b"here" not in said.stdout


def test_programs_beside_it_are_found(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's engine calls ninja, which its environment has and our PATH has not."""
    ninja = other.with_name("ninja")
    ninja.write_text("#!/bin/sh\necho built\n")
    ninja.chmod(0o755)
    for python, found in ((str(other), b"built\n"), ("python-of-no-place", b"")):
        environment = Launch(python=python).environment()
        done = subprocess.run("ninja", shell=True, env=environment, capture_output=True)
        assert done.stdout == found


def test_packages_of_our_interpreter_are_not_for_another_one(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages, source = tmp_path / "packages", tmp_path / "source"
    add_distribution(packages, "msgspec", "0.1")
    source.mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{packages}{os.pathsep}{source}")
    assert environment_of(str(other))["PYTHONPATH"] == str(source)
    assert environment_of(sys.executable)["PYTHONPATH"] == f"{packages}{os.pathsep}{source}"
    inside = Launch(python=str(other), token="secret").environment()["PYTHONPATH"]
    assert str(packages) not in inside.split(os.pathsep) and inside.endswith(str(source))


def test_where_vllm_itself_comes_from_pythonpath_it_stays(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (metadata,) = other.parents[1].glob("lib/python*/site-packages/vllm-*/METADATA")
    metadata.unlink()
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(UserError, match="has no vLLM"):
        find_python(str(other))
    add_distribution(tmp_path / "packages", "vllm", "0.32.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    assert installed_version(str(other)) == "0.32.0"
    assert environment_of(str(other))["PYTHONPATH"] == str(tmp_path / "packages")


def test_why_it_cannot_be_run_is_its_own_last_line(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho libfoo.so.1: cannot open shared object file >&2\nexit 127\n")
    broken.chmod(0o755)
    with pytest.raises(UserError, match=r"cannot be run \(libfoo.so.1: cannot open"):
        find_python(str(broken))
