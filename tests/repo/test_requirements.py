"""What is taken of a project's declarations, and what never is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

from selfplay.repo.dependencies.requirements import (
    DEV_GROUP,
    NOT_TESTS,
    TEST_GROUP,
    Declaration,
    parse,
    reason_to_skip,
    select,
    without_versions,
)


def test_run_time_and_test_groups() -> None:
    declared = select(
        [
            Declaration(
                name="Calc",
                runtime=("attrs>=22", "tomli; python_version<'3'"),
                groups={"test": ("hypothesis>=6", "attrs==20.1"), "docs": ("furo",)},
            ),
            Declaration(groups={"dev": ("numpy",), "Testing": ("mock ; python_version>='3'",)}),
        ]
    )
    assert declared.name == "Calc"
    assert declared.runtime == ("attrs>=22",)  # the marker of tomli does not hold
    assert declared.testing == ("hypothesis>=6", "mock")  # attrs is there; dev is not needed


def test_development_groups_are_a_last_resort() -> None:
    groups = {"test": ("pytest>=7", "pytest-cov", "ruff"), "dev": ("lxml", "black")}
    declared = select([Declaration(groups=groups)])
    assert declared.testing == ("lxml",)
    assert set(declared.skipped) == {"pytest-cov", "ruff", "black"}


def test_a_projects_own_extras_are_followed_and_circles_end() -> None:
    groups = {
        "dev": ("calc[test,dev]", "lxml"),
        "test": ("Calc[math]", "mock[a]", "mock[b]"),
        "math": ("numpy",),
    }
    declared = select([Declaration(name="calc", runtime=("calc",), groups=groups)])
    assert declared.runtime == ()
    assert declared.testing == ("numpy", "mock[a,b]")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-e .", "option"),
        ("--index-url=http://x", "option"),
        ("./dist/x.whl", "no name"),
        ("../x", "no name"),
        ("x @ file:///etc/passwd", "URL"),
        ("git+https://example.org/x", "no name"),
        ("x.zip", "file"),
        ("x.tar.gz>=1", "file"),
        ("hypo thesis", "no name"),
    ],
)
def test_only_names_of_packages_are_taken(line: str, reason: str) -> None:
    declared = select([Declaration(runtime=(line,), groups={"test": (line,)})])
    assert declared.runtime == declared.testing == ()
    assert reason in declared.skipped[line]


@pytest.mark.parametrize(
    "name", ["tox", "tox-uv", "sphinx-rtd-theme", "pytest-randomly", "types-toml", "flake8-commas"]
)
def test_skipped(name: str) -> None:
    assert reason_to_skip(name)


@pytest.mark.parametrize(
    "name",
    ["hypothesis", "pytest-mock", "pytest-asyncio", "numpy", "toolz", "blinker", "pytest-xdist"],
)
def test_not_skipped(name: str) -> None:
    assert reason_to_skip(name) is None


def test_what_is_heavy_is_still_taken_at_run_time() -> None:
    assert select([Declaration(runtime=("torch>=2",))]).runtime == ("torch>=2",)


def test_names_of_groups() -> None:
    tests = (
        "test",
        "tests",
        "testing",
        "unittests",
        "pytest",
        "test-extras",
        "dev-test",
        "tests-min",
    )
    assert all(TEST_GROUP.fullmatch(name) for name in tests)
    assert not any(TEST_GROUP.fullmatch(name) for name in ("latest", "docs", "contest", "fast"))
    assert all(DEV_GROUP.fullmatch(name) for name in ("dev", "develop", "development", "dev-extra"))
    assert all(NOT_TESTS.fullmatch(name) for name in ("test-docs", "lint", "typing", "test-mypy"))


def test_without_versions() -> None:
    assert without_versions(["a[x,b]==1.0", "c>=2,<3", "d"]) == ("a[b,x]", "c", "d")


LINES = st.lists(
    st.one_of(st.text(max_size=40), st.from_regex(r"[a-z-]{1,9}(\[[a-z]\])?[=<>]=?\d"))
)


@settings(deadline=None)
@given(runtime=LINES, testing=LINES)
def test_whatever_a_project_says_pip_gets_names_with_versions(
    runtime: list[str], testing: list[str]
) -> None:
    groups = {"test": tuple(testing), "dev": tuple(runtime)}
    declared = select([Declaration(name="p", runtime=tuple(runtime), groups=groups)])
    taken = [*declared.runtime, *declared.testing]
    for text in [*taken, *without_versions(taken)]:
        requirement = Requirement(text)
        assert requirement.url is None and requirement.marker is None
        assert not text.startswith("-") and "/" not in text
        assert not isinstance(parse(text), str)
    names = [Requirement(text).name.lower().replace("_", "-") for text in taken]
    assert len(names) == len(set(names))
