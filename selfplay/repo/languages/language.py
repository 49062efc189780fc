"""What the rest of the package asks of a language: one protocol, an object for each language.

How to add one: docs/architecture.md, "Languages". What needs rooms above this one (signals of
cheating, edits of tests, canaries, failures) is registered there, in one table a room, by `name`.
"""

from __future__ import annotations

from typing import Protocol

from selfplay.repo.languages.python_functions import FunctionInfo
from selfplay.sandbox.base import Environment


class Language(Protocol):
    """One language. Texts are decoded with surrogateescape; nothing raises on odd input."""

    @property
    def name(self) -> str:
        """As people write it; the key of every table."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of the names of its files."""

    def is_source(self, path: str) -> bool:
        """Whether bugs may be seeded in a file with one of the suffixes: no stub, no test, and
        nothing that builds or runs the project."""

    def functions(self, source: str, path: str) -> list[FunctionInfo]:
        """Functions in source order; [] when the file cannot be read for certain."""

    def is_valid(self, source: str) -> bool:
        """False when the text is surely not of the language."""

    def same_code(self, left: str, right: str) -> bool:
        """Whether two texts differ in comments, documentation and layout at most."""

    def normal_form(self, source: str) -> str:
        """What texts that are the same code have in common, as far as that can be told."""

    def without_bodies(self, source: str) -> str | None:
        """The text whose functions do nothing any more, with all else in it; None where there is
        nothing to take, or no one knows how."""

    def steers(self, path: str) -> bool:
        """Whether a file of this name steers the test runner or the interpreter's start."""

    def shadows(self, path: str, environment: Environment) -> bool:
        """Whether a *new* file at this path would be loaded instead of an installed module, the
        test runner's or the language's own."""
