"""Each file in which projects say what they need, by value; and that none of it is ever run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.repo.dependencies.declarations import (
    from_metadata,
    from_requires_txt,
    from_setup_cfg,
    from_setup_py,
    read_declared,
)
from selfplay.repo.dependencies.pyproject import dependency_groups, from_pyproject
from selfplay.repo.dependencies.requirement_files import REQUIREMENT_FILE, from_files, from_tox
from selfplay.repo.dependencies.requirements import other_python, refused_python

METADATA = """\
Metadata-Version: 2.4
Name: Calc
Version: 1.0
Requires-Dist: attrs>=22
Requires-Dist: tomli; python_version < "3"
Requires-Dist: lxml>=4; (python_version >= "3") and extra == "xml-tests"
Requires-Dist: mock; extra == 'test'
Provides-Extra: xml_tests

Requires-Dist: not-a-header
"""


def test_metadata() -> None:
    found = from_metadata(METADATA)
    assert found.name == "Calc"
    assert found.runtime == ("attrs>=22",)
    assert found.groups["xml_tests"] == ("lxml>=4",)
    assert found.groups["test"] == ("mock",)


PYPROJECT = """\
[project]
name = "calc"
dependencies = ["attrs"]
optional-dependencies = {test = ["mock"], docs = ["furo"]}
[dependency-groups]
Base = ["numpy", {include-group = "loop"}, {other = 1}]
loop = [{include-group = "base"}, "lxml"]
test = [{include-group = "BASE"}, "hypothesis"]
[tool.uv]
dev-dependencies = ["sybil"]
[tool.hatch.envs.hatch-test]
extra-dependencies = ["freezegun"]
[tool.pdm.dev-dependencies]
testing = ["regex"]
"""
POETRY = """\
[tool.poetry]
name = "calc"
[tool.poetry.dependencies]
python = "^3.8"
attrs = "^22"
local = {path = "../x"}
maybe = {version = "*", optional = true}
[tool.poetry.dev-dependencies]
mock = "*"
[tool.poetry.group.tests.dependencies]
lxml = {version = "^4", extras = ["a"]}
"""


def test_pyproject() -> None:
    found = from_pyproject(PYPROJECT)
    assert (found.name, found.runtime) == ("calc", ("attrs",))
    assert found.groups["test"] == ("mock", "numpy", "lxml", "hypothesis")
    assert found.groups["dev"] == ("sybil",)
    assert found.groups["hatch-test"] == ("freezegun",)
    assert found.groups["testing"] == ("regex",)


def test_poetry() -> None:
    found = from_pyproject(POETRY)
    assert (found.name, found.runtime) == ("calc", ("attrs",))
    assert found.groups == {"dev": ("mock",), "tests": ("lxml",)}


def test_groups_that_include_each_other() -> None:
    item = {"include-group": "a"}
    assert dependency_groups({"A": ["x", item], "b": [item, "y", "x"]}) == {
        "a": ("x",),
        "b": ("x", "y"),
    }


def test_extras_of_one_name_in_both_tables_are_joined() -> None:
    text = '[project.optional-dependencies]\ntest = ["a"]\n[dependency-groups]\ntest = ["b"]\n'
    assert set(from_pyproject(text).groups["test"]) == {"a", "b"}


def test_requires_txt() -> None:
    text = (
        'attrs\n\n[:python_version < "3"]\nenum34\n\n[test]\nmock\n\n[test:os_name == "x"]\nwin\n'
    )
    found = from_requires_txt(text)
    assert found.runtime == ("attrs", 'enum34; python_version < "3"')
    assert found.groups == {"test": ("mock", 'win; os_name == "x"')}


def test_setup_cfg() -> None:
    text = """
[metadata]
name = calc
[options]
install_requires =
    attrs>=22  # why
    file: requirements.txt
tests_require = mock
[options.extras_require]
test =
    lxml>=4; python_version>="3"
    %(odd)s
"""
    found = from_setup_cfg(text)
    assert found.name == "calc"
    assert found.runtime == ("attrs>=22",)
    assert found.groups["tests"] == ("mock",)
    assert found.groups["test"][0] == 'lxml>=4; python_version>="3"'


SETUP_PY = """
import os, setuptools
os.system("touch /tmp/selfplay-was-run")
NEEDED = ("attrs", "boltons")
extras = {"test": ["mock"], "docs": ("furo",)}
setuptools.setup(name="calc", install_requires=NEEDED, extras_require=extras,
    tests_require=["lxml"], version=os.environ["V"], packages=find())
"""


def test_setup_py_is_read_not_run(tmp_path: Path) -> None:
    found = from_setup_py(SETUP_PY)
    assert (found.name, found.runtime) == ("calc", ("attrs", "boltons"))
    assert found.groups == {"test": ("mock",), "docs": ("furo",), "tests": ("lxml",)}
    (tmp_path / "setup.py").write_text(SETUP_PY, encoding="utf-8")
    assert set(read_declared(tmp_path).testing) == {"mock", "lxml"}
    assert not Path("/tmp/selfplay-was-run").exists()


def test_requirement_files_and_their_includes() -> None:
    files = {
        "requirements/common.txt": "attrs==1 \\\n  --hash=sha256:00\n-r tests.txt\n",
        "requirements/tests.txt": "-r common.txt  # circle\n-r ../../etc/passwd\nmock\n-e .\n",
        "requirements-dev.txt": "-r requirements/common.txt\nlxml\n",
        "requirements.txt": "boltons\n",
        "docs/requirements.txt": "furo\n",
    }
    found = from_files(files)
    assert found.runtime == ()
    assert found.groups == {
        "test": ("attrs==1", "mock", "-e .", "mock", "-e ."),
        "dev": ("attrs==1", "mock", "-e .", "lxml"),
    }
    assert from_files(files, plain=True).runtime == ("boltons",)


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "requirements-test.txt", "test-requirements.txt", "requirements/dev.txt",
     "test_requirements.txt", "requirements.dev.txt", "tests/requirements.txt",
     "dev-requirements.in"],
)  # fmt: skip
def test_names_of_requirement_files(name: str) -> None:
    assert REQUIREMENT_FILE.fullmatch(name)


def test_tox() -> None:
    text = """
[testenv]
deps =
    lxml>=4
    -rrequirements-test.txt
    py27: mock
    {[base]deps}
[testenv:docs]
deps = furo
"""
    found = from_tox(text, {"requirements-test.txt": "hypothesis\n"})
    assert found.groups == {"test": ("lxml>=4", "hypothesis")}


def test_a_whole_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {
        "PKG-INFO": METADATA,
        "pyproject.toml": PYPROJECT,
        "requirements.txt": "not-taken\n",
        "calc.egg-info/requires.txt": "attrs>=1\n",
        "tests/requirements.txt": "https://example.org/x.zip\nsetuptools\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with caplog.at_level(logging.INFO):
        declared = read_declared(tmp_path)
    assert declared.name == "Calc"
    assert declared.runtime == ("attrs>=22",)
    assert {"lxml>=4", "mock", "hypothesis", "setuptools"} <= set(declared.testing)
    assert "not-taken" not in declared.testing
    assert "https://example.org/x.zip" in caplog.text


@settings(deadline=None)
@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for read in (from_metadata, from_pyproject, from_requires_txt, from_setup_cfg, from_setup_py):
        read(text)
    from_tox(text, {"a": text})
    from_files({"requirements-test.txt": text})


@pytest.mark.parametrize(
    ("files", "asked"),
    [
        ({"pyproject.toml": '[dependency-groups]\ntest = ["pytest>=7,<9", "x"]\n'}, "pytest<9,>=7"),
        ({"pyproject.toml": '[dependency-groups]\ntest = ["pytest<8"]\n'}, ""),
        ({"pyproject.toml": '[dependency-groups]\ntest = ["pytest"]\n'}, ""),
        (
            {
                "pyproject.toml": '[dependency-groups]\ntest = ["pytest"]\n',
                "uv.lock": '[[package]]\nname = "pytest"\nversion = "9.0.2"\n',
            },
            "pytest==9.0.2",
        ),
        ({"poetry.lock": '[[package]]\nname = "pytest"\nversion = "7.4.0"\n'}, ""),
        ({"uv.lock": "version = 1\n"}, ""),
        ({"uv.lock": "[[package"}, ""),
    ],
    ids=["a bound", "too old", "any", "its lock", "an old lock", "a lock without", "no lock"],
)
def test_which_pytest(files: dict[str, str], asked: str, tmp_path: Path) -> None:
    """Flask's tests of 2026 read a private name that pytest 9.1 dropped: all of them failed."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = read_declared(tmp_path)
    assert found.pytest == asked and not any(line.startswith("pytest") for line in found.testing)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", '[project]\nname = "a"\nrequires-python = "<3.9"\n'),
        ("setup.cfg", "[options]\npython_requires = <3.9\n"),
        ("setup.py", "from setuptools import setup\nsetup(python_requires='<3.9')\n"),
        ("PKG-INFO", "Metadata-Version: 2.1\nName: a\nRequires-Python: <3.9\n"),
    ],
)
def test_another_python_is_told(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    declared = read_declared(tmp_path)
    assert refused_python(declared).startswith("it asks for Python <3.9, and its tests run under")
    assert other_python(declared) == refused_python(declared)


def test_the_newest_python_that_it_names(tmp_path: Path) -> None:
    """Old sources bound nothing from above; their classifiers tell for which Python they are."""
    line = "'Programming Language :: Python :: {}'"
    names = ", ".join(map(line.format, ("2.7", "3", "3.3", "3 :: Only")))
    (tmp_path / "setup.py").write_text(
        f"import setuptools\nsetuptools.setup(classifiers=[{names}])"
    )
    declared = read_declared(tmp_path)
    assert not refused_python(declared)
    assert other_python(declared).startswith("the newest Python that it names is 3.3, and its")
    (tmp_path / "setup.py").write_text("import setuptools\nsetuptools.setup()\n")
    assert not other_python(read_declared(tmp_path))
