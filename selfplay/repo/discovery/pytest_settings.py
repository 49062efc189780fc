"""Ways to run a repository's tests under pytest, from its own settings to what works elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from selfplay.repo.dependencies.venv import GUARD

LENIENT = (
    *("filterwarnings=", "required_plugins=", "minversion="),
    *("strict=false", "strict_config=false", "strict_markers=false"),
)
"""Settings that make a run fail for what is not a fault of the code: warnings of a newer Python or
library, plugins that only measure or print, marks of such plugins."""
WIDE = ("python_files=test*.py *test.py *tests.py", "testpaths=")
"""What unittest would find, and more, wherever it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestSettings:
    """How pytest is run. `options`: of discovery alone, for later runs name their files.

    lenient     without the project's settings that turn warnings into errors and the like
    guard       with `repo.guard`
    """

    options: tuple[str, ...] = ()
    lenient: bool = False
    guard: bool = False

    def guarded(self) -> PytestSettings:
        """The same behind the guard."""
        return replace(self, guard=True)

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """What every run needs in its environment, above the `given` variables."""
        found: dict[str, str] = {}
        if self.lenient:
            settings = " ".join(f"-o {setting}" for setting in LENIENT)
            found["PYTEST_ADDOPTS"] = f"{given.get('PYTEST_ADDOPTS', '')} {settings}".strip()
        if self.guard:
            found["PYTEST_PLUGINS"] = GUARD
        return found


_FILES = tuple(word for setting in WIDE for word in ("-o", setting))
ATTEMPTS = tuple(
    PytestSettings(options=options, lenient=lenient)
    for options in ((), _FILES)
    for lenient in (False, True)
)
