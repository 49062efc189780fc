"""Checkouts as they are: versions, entry points and layouts that only a build backend knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import distributions
from pathlib import Path

import pytest

from selfplay.repo.dependencies.build import Built, build, read_wheel
from selfplay.repo.dependencies.layout import find_layout
from selfplay.repo.dependencies.venv import add_metadata, without_description
from selfplay.repo.prepare import prepare
from selfplay.repo.sources.git import described_version, git
from selfplay.repo.spec import LocalSource, RepoSpec
from selfplay.sandbox.base import Sandbox
from tests.repo.conftest import Git

pytestmark = pytest.mark.slow
Backend = Callable[[Mapping[str, str], str], Built]

SCM = """
[build-system]
requires = ["setuptools", "setuptools-scm"]
build-backend = "setuptools.build_meta"
[project]
name = "calc-tools"
dynamic = ["version"]
[project.scripts]
calc = "calc.cli:main"
[project.entry-points."calc.plugins"]
own = "calc.cli"
[tool.setuptools]
package-dir = {"" = "lib"}
[tool.setuptools.packages.find]
where = ["lib"]
[tool.setuptools_scm]
version_file = "lib/calc/_version.py"
"""
HATCH = """
[build-system]
requires = ["hatchling", "hatch-vcs"]
build-backend = "hatchling.build"
[project]
name = "acme.calc"
dynamic = ["version"]
[tool.hatch.version]
source = "vcs"
[tool.hatch.build.hooks.vcs]
version-file = "src/acme/calc/version.py"
[tool.hatch.build.targets.wheel]
packages = ["src/acme"]
"""
POETRY = """
[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
[tool.poetry]
name = "calc"
version = "1.0"
description = ""
authors = []
packages = [{ include = "calc", from = "source" }]
"""
RENAMED = """
from setuptools import setup
setup(name="calc", version="1.0", packages=["calc"], package_dir={"calc": "code"})
"""
HOSTILE = """
import socket
from pathlib import Path
from setuptools import setup
Path("MARKER").write_text("was run on the host")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
    version = "6.6.6"
except OSError:
    version = "1.0"
setup(name="calc", version=version, py_modules=["calc"])
"""


@pytest.fixture
def backend(sandbox: Sandbox, place: Path) -> Backend:
    def run(files: Mapping[str, str], version: str) -> Built:
        tree = Path(tempfile.mkdtemp(dir=place)) / "tree"
        tree.parent.chmod(0o755)
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text, encoding="utf-8")
        return build("calc", tree, version, sandbox)

    return run


def test_versions_entry_points_and_a_folder_of_another_name(backend: Backend) -> None:
    files = {
        "pyproject.toml": SCM,
        "lib/calc/__init__.py": "",
        "lib/calc/cli.py": "def main(): ...",
    }
    built = backend(files, "2.5.1")
    assert built.roots == ("lib",) and not built.failure
    assert "2.5.1" in built.generated["lib/calc/_version.py"].decode()
    points = built.metadata["calc_tools-2.5.1.dist-info/entry_points.txt"].decode()
    assert "calc = calc.cli:main" in points and "[calc.plugins]" in points


def test_a_namespace_package_whose_version_is_in_git_alone(backend: Backend) -> None:
    built = backend({"pyproject.toml": HATCH, "src/acme/calc/__init__.py": "x = 1\n"}, "3.1")
    assert built.roots == ("src",)
    assert "3.1" in built.generated["src/acme/calc/version.py"].decode()


def test_where_poetry_takes_packages_from(backend: Backend) -> None:
    built = backend({"pyproject.toml": POETRY, "source/calc/__init__.py": "x = 1\n"}, "")
    assert built.roots == ("source",) and not built.generated


def test_a_package_whose_folder_has_another_name(backend: Backend) -> None:
    built = backend(
        {"setup.py": RENAMED, "code/__init__.py": "x = 1\n", "code/a.py": "y = 2\n"}, ""
    )
    assert built.aliases == {"calc": "code"} and not built.roots and not built.generated


def test_code_of_a_project_runs_in_the_sandbox_alone(backend: Backend, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    files = {"setup.py": HOSTILE.replace("MARKER", str(marker)), "calc.py": "x = 1\n"}
    built = backend(files, "")
    assert not marker.exists()
    assert built.failure or "calc-1.0.dist-info/METADATA" in built.metadata, "it had a network"


def test_a_backend_that_fails_is_told_and_is_no_end(
    sandbox: Sandbox, place: Path, tmp_path: Path, git: Git
) -> None:
    work = tmp_path / "calc"
    work.mkdir()
    (work / "setup.py").write_text("raise SystemExit('not today')\n", encoding="utf-8")
    (work / "calc.py").write_text("def one():\n    x = 1\n    return x\n", encoding="utf-8")
    test = "from calc import one\n\n\ndef test_one():\n    assert one() == 1\n"
    (work / "test_calc.py").write_text(test, encoding="utf-8")
    spec = RepoSpec(name="calc", source=LocalSource(path=str(work)))
    prepared = prepare(spec, sandbox, cache_dir=place)
    assert list(prepared.profile.tests) == ["test_calc.py::test_one"]


def test_a_checkout_is_ready_as_it_is(
    sandbox: Sandbox, place: Path, tmp_path: Path, git: Git
) -> None:
    work = tmp_path / "calc-tools"
    test = """
import importlib.metadata, subprocess
from calc import __version__, triple

def test_version():
    assert importlib.metadata.version("calc-tools") == __version__ == "1.2"

def test_command():
    assert subprocess.check_output(["calc", "4"], text=True) == "12\\n"

def test_triple():
    assert triple(2) == 6
"""
    files = {
        "pyproject.toml": SCM,
        ".gitignore": "_version.py\n",
        "lib/calc/__init__.py": "from ._version import __version__\n\n\n"
        "def triple(x):\n    y = x\n    return 3 * y\n",
        "lib/calc/cli.py": "import sys\nfrom calc import triple\n\n\ndef main():\n"
        "    print(triple(int(sys.argv[1])))\n",
        "checks/test_calc.py": test,
    }
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text, encoding="utf-8")
    git(work, "init", "-q")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "v1.2")
    spec = RepoSpec(name="calc-tools", source=LocalSource(path=str(work)))
    prepared = prepare(spec, sandbox, cache_dir=place)
    assert {test.rpartition("::")[2] for test in prepared.profile.tests} == {
        "test_version", "test_command", "test_triple",
    }  # fmt: skip
    assert not prepared.profile.excluded
    assert prepared.profile.tests_reaching("lib/calc/__init__.py", "triple")


@pytest.mark.parametrize(
    ("tag", "later", "version"),
    [("v1.2", 0, "1.2"), ("release-2.0.1", 2, "2.0.1.post2"), ("1.0rc1", 0, "1.0rc1"),
     ("9.2.0.dev0", 2, "9.2.0.dev2"), ("1rc1.dev3", 0, "1rc1.dev3"), ("1.post1", 1, "1.post1"),
     ("calc_3_1", 0, "3.1"), ("first2last", 0, "0.0.1"), ("", 0, "0.0.1")],
)  # fmt: skip
def test_what_tags_say(tag: str, later: int, version: str, tmp_path: Path) -> None:
    git("init", "-q", cwd=tmp_path)
    git("commit", "-q", "--allow-empty", "-m", "a", cwd=tmp_path)
    if tag:
        git("tag", tag, cwd=tmp_path)
    for _ in range(later):
        git("commit", "-q", "--allow-empty", "-m", "b", cwd=tmp_path)
    assert described_version(tmp_path / ".git") == version


def test_a_layout_by_votes(tmp_path: Path) -> None:
    for name in ("pkg/a.py", "build/lib/pkg/a.py", "lib2/other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    layout = find_layout(tmp_path, {"pkg/a.py": b"x", "pkg/b.py": b"y", "other.py": b"x"})
    assert layout.roots == ("", "lib2") and layout.missing == {"pkg/b.py": b"y"}


def test_a_wheel_that_leaves_its_folder(tmp_path: Path) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../evil.py", "x")
    with pytest.raises(ValueError, match="leaves its folder"):
        read_wheel(buffer.getvalue(), tmp_path)


DOCUMENTED = """\
import calc
from setuptools import setup
setup(name="calc", version="1.0", py_modules=["calc"], long_description=calc.__doc__,
      long_description_content_type="text/x-rst", extras_require={"fast": ["numpy"]})
"""


def test_a_docstring_does_not_come_back_as_the_project_s_description(
    backend: Backend, tmp_path: Path
) -> None:
    """`parse` says so of itself: 36 mined bugs whose answers touch the docstring were left out,
    since a solver could read them among the installed packages."""
    secret = '"""Adds.\n\n>>> add(1, 2)\n3\n"""\n'
    built = backend({"setup.py": DOCUMENTED, "calc.py": secret}, "")
    assert b">>> add(1, 2)" in built.metadata["calc-1.0.dist-info/METADATA"]
    add_metadata(built.metadata, tmp_path)
    (found,) = distributions(name="calc", path=[str(tmp_path)])
    assert found.version == "1.0" and found.metadata["Name"] == "calc"
    assert found.requires == ['numpy; extra == "fast"']
    assert ">>>" not in (tmp_path / "calc-1.0.dist-info" / "METADATA").read_text()


def test_descriptions_among_the_headers() -> None:
    """As PKG-INFO had them before metadata 2.1."""
    told = b"Name: calc\r\nDescription: Adds.\r\n        \r\n        >>> add(1, 2)\r\n       |3\r\n"
    assert without_description(told + b"Version: 1.0\r\n") == b"Name: calc\nVersion: 1.0\n"
    assert without_description(b"Name: calc\nVersion: 1.0") == b"Name: calc\nVersion: 1.0\n"
    assert without_description(b"Name: calc\n\nName: body\n") == b"Name: calc\n"


def test_a_tree_of_a_thousand_files_of_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each was read for each of the others: Django, with its catalogues, took minutes."""
    code = {f"pkg/lang{i}/messages.po": b"%d" % i for i in range(60)}
    for path, content in code.items():
        (tmp_path / "source" / path.partition("/")[2]).parent.mkdir(parents=True)
        (tmp_path / "source" / path.partition("/")[2]).write_bytes(content)
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    assert find_layout(tmp_path, code).aliases == {"pkg": "source"}
    assert len(read) <= len(code)
