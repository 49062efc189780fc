"""Runs INSIDE a sandbox, a pytest plugin: test files that call `unittest.main()` when they are
imported (with no `if __name__ == "__main__"`) would run themselves, with pytest's arguments, and
end it. Under pytest that call does nothing; pytest collects their classes."""

from __future__ import annotations

import unittest
from typing import Any


def run_nothing(*arguments: Any, **options: Any) -> None:
    """Stands for `unittest.main`."""


unittest.main = run_nothing  # type: ignore[assignment]
