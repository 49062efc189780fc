"""What a run of a bug's tests told, kept in memory: each bug is asked about many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_KEPT = 512
"""Findings that are kept; one is some kilobytes."""


class Kept(Generic[T]):
    """Findings by question, the least recently asked forgotten first. Thread-safe."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, question: Hashable) -> T | None:
        """What is known of it; None: nothing."""
        with self._lock:
            if question not in self._found:
                return None
            self._found.move_to_end(question)
            return self._found[question]

    def keep(self, question: Hashable, found: T) -> None:
        """Know it from now on."""
        with self._lock:
            self._found[question] = found
            while len(self._found) > MAX_KEPT:
                self._found.popitem(last=False)
