"""Weakens a test suite: test functions go, so that a bug is unnoticed (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from selfplay.bugs.test_edits.editors import by_editor
from selfplay.types import Layer


def weakening_layer(tree: Path, test_ids: Iterable[str]) -> Layer:
    """The original tree's test files without these tests, each as its language has it.

    Ids that no code of a test file stands behind (doctests in code, generated tests) stay: the
    weakening check of the validation counts what is left.
    """
    layer: Layer = {}
    for editor, tests in by_editor(test_ids):
        layer = {**layer, **editor.without(tree, tests)}
    return layer
