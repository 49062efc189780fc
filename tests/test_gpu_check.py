"""The pack for a machine without network, and the check that runs there: what is cut is joined
again, what is damaged is refused, and one part's failure leaves the others."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHECK = ROOT / "scripts" / "gpu_check.py"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """Parts of 1,000 bytes with one wheel, a model that is only a name, and no repositories."""
    folder = tmp_path / "folder"
    for name in ("wheels", "index", "model"):
        (folder / name).mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    with zipfile.ZipFile(folder / "wheels" / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "WORD = 'here'\n")
        info = "carried-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")
    document = {"python": "3.12", "repos": [], "model": "model", "files": []}
    (folder / "pack.json").write_text(json.dumps(document))
    parts = script("gpu_pack").cut(folder, tmp_path / "pack", 1000)
    assert len(parts) > 1 and max(part["bytes"] for part in parts) <= 1000
    return tmp_path / "pack"


def check(tmp_path: Path, pack: Path, work: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, CHECK, "--pack", pack, "--out", tmp_path / "out",
         "--work", work, "--device", "cpu", *words],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=700,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    results: dict[str, Any] = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == json.loads(done.stdout.splitlines()[-1])
    return done.returncode, results


@pytest.mark.slow
def test_parts_are_joined_and_wheels_lie_beside_the_checkout(tmp_path: Path, pack: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="selfplay-tests-") as folder:  # the sandbox's uid may
        work = Path(folder)
        code, results = check(tmp_path, pack, work, "--minutes", "10", "--only", "environment")
        assert code == 0, results["failed"]
        assert results["environment"]["sandbox"] in ("bubblewrap", "docker")
        assert results["environment"]["model"] == str(work / "pack" / "model")
        assert (work / "site" / "carried.py").is_file()
    assert (tmp_path / "out" / "summary.txt").read_text().count("environment.") > 5


def test_a_damaged_part_is_named_and_later_parts_are_tried(tmp_path: Path, pack: Path) -> None:
    damaged = pack / "part_01"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    words = ("--minutes", "1", "--only", "environment,compare,run")
    code, results = check(tmp_path, pack, tmp_path / "work", *words)
    assert code == 1
    assert "part_01" in results["failed"]["environment"]
    assert {"environment", "compare", "run"} == set(results["failed"])
    assert results["environment"]["cores"] == os.cpu_count()  # known before it failed


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    module = script("gpu_check")
    sys.argv = ["gpu_check.py", "--minutes", "1", "--out", str(tmp_path), "--work", str(tmp_path)]
    check = module.Check(module.parse())
    process = check.start(["sleep", "60"])
    assert check.wait(process, 0.1) is None
    assert process.poll() is not None


def test_what_a_package_needs_in_turn_is_carried_too(tmp_path: Path) -> None:
    module = script("gpu_pack")
    wheel = tmp_path / "some-1.0-py3-none-any.whl"
    lines = ("Name: some", "Requires-Dist: Needed_Too>=1", 'Requires-Dist: x; extra == "more"',
             'Requires-Dist: old; python_version < "3"', "",
             "Requires-Dist: of-the-text")  # fmt: skip
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some-1.0.dist-info/METADATA", "\n".join(lines))
    assert module.names_of(module.needs_of(wheel)) == {"needed-too"}


def test_git_is_carried_for_machines_without_it(tmp_path: Path) -> None:
    script("gpu_pack").copy_git(tmp_path / "git")
    for words in (["init", "-q", "."], ["status", "--short"]):
        done = subprocess.run(
            ["/bin/sh", tmp_path / "git" / "bin" / "git", *words],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "GIT_CONFIG_GLOBAL": os.devnull},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "?? git/\n"
