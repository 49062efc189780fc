"""The small project that the tests of this folder play on, and helpers to change it."""

from __future__ import annotations

from collections.abc import Callable

from selfplay.types import BugArtifact, FileChange, Layer, SolveTask

PRICES = '''\
"""Prices in cents."""


def with_tax(cents, rate):
    """Price including tax, rounded down."""
    return cents + cents * rate // 100


def discount(cents, percent):
    if percent < 0 or percent > 100:
        raise ValueError("percent")
    return cents - cents * percent // 100


def total(prices):
    result = 0
    for price in prices:
        result += price
    return result
'''
NAMES = '''\
"""Names of customers."""


def initials(name):
    return "".join(word[0].upper() for word in name.split())


def shorten(name, width):
    """Cut a name to `width` characters."""
    if len(name) <= width:
        return name
    return name[: width - 1] + "."


def label(name, width=8):
    return f"<{shorten(name, width)}>"
'''
TEST_PRICES = """\
import pytest
from shop.prices import discount, total, with_tax


def test_with_tax():
    assert with_tax(1000, 20) == 1200


@pytest.mark.parametrize(("cents", "want"), [(100, 90), (55, 50), (0, 0)])
def test_discount(cents, want):
    assert discount(cents, 10) == want


def test_discount_bounds():
    with pytest.raises(ValueError):
        discount(1, 101)


class TestTotal:
    def test_empty(self):
        assert total([]) == 0

    def test_some(self):
        assert total([1, 2, 3]) == 6
"""
TEST_NAMES = """\
import unittest

from shop.names import initials, label, shorten


class TestNames(unittest.TestCase):
    def test_initials(self):
        self.assertEqual(initials("ada lovelace"), "AL")

    def test_shorten(self):
        for width, want in ((3, "ad."), (9, "ada")):
            with self.subTest(width=width):
                self.assertEqual(shorten("ada" if width > 5 else "adam", width), want)

    def test_label(self):
        self.assertEqual(label("ada"), "<ada>")
"""
FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": PRICES,
    "shop/names.py": NAMES,
    "tests/test_prices.py": TEST_PRICES,
    "tests/test_names.py": TEST_NAMES,
    "tests/conftest.py": "import pytest\n",
    "README.md": "# Shop\n",
}
TEST_FILES = ("tests/test_prices.py", "tests/test_names.py")
Change = dict[str, str | None]


def as_layer(changes: Change) -> Layer:
    """{path: text or None} as a layer."""
    return {
        path: FileChange(content=None if text is None else text.encode())
        for path, text in changes.items()
    }


def replaced(path: str, *pairs: tuple[str, str]) -> Change:
    """A change of one file of the shop by text replacement; each text must occur."""
    text = FILES[path]
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return {path: text}


SUM_BUG = replaced("shop/prices.py", ("result += price", "result = price"))
SUM_TESTS = ("tests/test_prices.py::TestTotal::test_some",)

MakeArtifact = Callable[..., BugArtifact]
MakeTask = Callable[[BugArtifact], SolveTask]
