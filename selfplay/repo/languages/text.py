"""Any file whose language nobody knows: text, and nothing more.

Patches, sealing, validation and grading work on it; no function is listed, no signal looked for.
"""

from __future__ import annotations

from selfplay.repo.languages.python_functions import FunctionInfo
from selfplay.repo.languages.python_modules import shadows_module
from selfplay.sandbox.base import Environment


class Text:
    """Plain text: only equal texts are the same."""

    name = "text"
    suffixes: tuple[str, ...] = ()

    def is_source(self, path: str) -> bool:
        """Never: without functions there is no place for a bug."""
        return False

    def functions(self, source: str, path: str) -> list[FunctionInfo]:
        """None."""
        return []

    def is_valid(self, source: str) -> bool:
        """Always."""
        return True

    def same_code(self, left: str, right: str) -> bool:
        """Whether they are equal."""
        return left == right

    def normal_form(self, source: str) -> str:
        """The text itself."""
        return source

    def without_bodies(self, source: str) -> str | None:
        """None: of this language, whole files are taken."""
        return None

    def steers(self, path: str) -> bool:
        """Builds and tests may be started by `make`."""
        return path.rpartition("/")[2] == "Makefile"

    def shadows(self, path: str, environment: Environment) -> bool:
        """Data makes its folder a package of the Python that runs the harness's tests, too."""
        return shadows_module(path, environment)
