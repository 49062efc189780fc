"""Which files a fix may change: a test, a hook and a source are three different things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.patches.paths import is_hook_path, is_source_path, is_test_path

HOOKS = (
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini"),
    *("setup.cfg", "pyproject.toml", "sitecustomize.py", "usercustomize.py", "pyvenv.cfg"),
    *("noxfile.py", "Makefile", ".proverc", ".prove", ".perlrc", "sitecustomize.pl"),
    *("a.pth", "a.pyc", "a.pyo", "a.so", "a.cpython-311-x86_64-linux-gnu.so", "a.pyd"),
)
"""Written out here once more: nothing may drop out of the plug-ins unseen."""
TESTS = ("test_a.py", "a_test.py", "tests.py", "a.t", "a.spec.ts", "test_a.pl", "conftest.py")
SOURCES = ("core.py", "core.pyi", "Core.pm", "core.c", "data.json", "contest.py", "attest.py", "a")
DOCUMENTS = ("README.md", "NOTES.txt", "a.rst", "CHANGES.ADOC")
FOLDERS = st.lists(
    st.sampled_from(["pkg", "src", "lib", "deep", "a.b", "_x", "latest", "contests"]), max_size=3
)


@given(FOLDERS, st.sampled_from(HOOKS))
def test_hooks_are_hooks_wherever_they_lie(folders: list[str], name: str) -> None:
    path = "/".join([*folders, name])
    assert is_hook_path(path) and not is_source_path(path)


@pytest.mark.parametrize(
    "folder", ["__pycache__", "a/__pycache__/b", "a.egg-info", "x.dist-info", ".pytest_cache/v"]
)
@given(name=st.sampled_from(SOURCES))
def test_folders_that_steer(folder: str, name: str) -> None:
    assert is_hook_path(f"{folder}/{name}") and not is_source_path(f"{folder}/{name}")


@given(FOLDERS, st.sampled_from(TESTS))
def test_tests_are_no_source(folders: list[str], name: str) -> None:
    path = "/".join([*folders, name])
    assert is_test_path(path) and not is_source_path(path)


@given(FOLDERS, st.sampled_from(SOURCES))
def test_sources_until_a_test_folder_or_the_artifact_says_otherwise(
    folders: list[str], name: str
) -> None:
    path = "/".join([*folders, name])
    assert is_source_path(path) and not is_test_path(path) and not is_hook_path(path)
    assert is_test_path(path, [path]) and not is_source_path(path, [path])
    for place in ("tests", "test", "Testing", "spec", "__tests__"):
        assert is_test_path(f"{place}/{path}") and is_test_path(f"pkg/{place}/{path}")
    assert is_test_path(f"t/{path}") and is_test_path(f"xt/{path}")
    assert not is_test_path(f"pkg/t/{path}"), "Perl's folder of tests lies at the root"


@given(FOLDERS, st.sampled_from(DOCUMENTS))
def test_documents_are_neither(folders: list[str], name: str) -> None:
    path = "/".join([*folders, name])
    assert not is_source_path(path) and not is_hook_path(path) and not is_test_path(path)


@given(st.text(min_size=1).filter(lambda text: not text.startswith("/")))
def test_any_path_is_judged(path: str) -> None:
    judged = [is_test_path(path), is_hook_path(path), is_source_path(path)]
    assert not (judged[2] and (judged[0] or judged[1]))
