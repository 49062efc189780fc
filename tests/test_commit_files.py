"""What the files of a fix commit are to a bug."""

from __future__ import annotations

import pytest

from selfplay.bug_sources.commit_files import kinds_of
from selfplay.bug_sources.oracle import prefixes

FIX = ["shop/cart.py", "tests/test_cart.py"]
KINDS = {
    "CHANGES": "aside",
    "docs/changes/12.txt": "aside",
    "ChangeLog": "aside",
    "changelog.d/12.bugfix": "aside",
    "newsfragments/7.feature": "aside",
    "HISTORY.rst": "aside",
    "docs/conf.py": "aside",
    "uv.lock": "aside",
    "requirements-dev.txt": "aside",
    ".github/workflows/ci.yml": "aside",
    ".gitattributes": "aside",
    "Dockerfile": "aside",
    "pyproject.toml": "beside",
    "setup.py": "beside",
    "VERSION": "beside",
    "examples/buy.py": "beside",
    "data/prices.json": "beside",
    "shop/testdata/prices.yml": "beside",  # read by tests, though it lies with the code
    "shop/rates.json": "source",
    "shop/data/words.txt": "source",
    "shop/history.py": "source",
    "shop/version.py": "source",
    "tests/data/CHANGES": "test",
    "conftest.py": "test",
}


def test_kinds() -> None:
    found = kinds_of([*FIX, *KINDS])
    assert {path: found[path] for path in KINDS} == KINDS
    assert [found[path] for path in FIX] == ["source", "test"]


@pytest.mark.parametrize(
    ("paths", "source"),
    [
        (["tools/lint.py", "tests/test_lint.py"], "tools/lint.py"),  # the project is a tool
        (["zones/eu.json", "tests/test_zones.py"], "zones/eu.json"),  # the data was mended
        (["setup.py", "pyproject.toml", "tests/test_a.py"], None),
    ],
)
def test_where_no_code_is_left_something_else_was_mended(
    paths: list[str], source: str | None
) -> None:
    assert [p for p, kind in kinds_of(paths).items() if kind == "source"] == [
        p for p in (source,) if p
    ]


def test_few_words_leave_many_tests_out_and_none_that_passes() -> None:
    bad = [f"a.py::test_net[{i}]" for i in range(9000)] + ["a.py::TestX::test_a", "a.py::test_b"]
    good = ["a.py::test_network", "a.py::TestY::test_a", "a.py::test_c", "a.py::test_d[1]"]
    assert prefixes(bad, good) == ["a.py::TestX::", "a.py::test_b", "a.py::test_net["]
    assert prefixes(["a.py::test_d[2]"], good) == ["a.py::test_d[2]"]
    assert prefixes(["a.py::TestY::test_b"], good) == ["a.py::TestY::test_b"]
