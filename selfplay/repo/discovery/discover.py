"""Discovery: which tests a repository has, which of them can be trusted, and what each reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import RepoError
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.discovery.pytest_discovery import discover_pytest, has_python
from selfplay.repo.discovery.tap import discover_tap, tap_files
from selfplay.repo.spec import WHOLE, SuitePart
from selfplay.sandbox.base import Environment, Sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """How the tests of one framework are found.

    may_run    whether a tree has files for it
    discover   (environment, sandbox, folder for byte code, whether nobody is asked after it, which
               part of the suite) -> profile, or None where no test passes and others are asked
    """

    may_run: Callable[[Path], bool]
    discover: Callable[[Environment, Sandbox, Path, bool, SuitePart], RepoProfile | None]


FRAMEWORKS: dict[str, Discovery] = {
    "pytest": Discovery(may_run=has_python, discover=discover_pytest),
    "tap": Discovery(may_run=lambda tree: bool(tap_files(tree)), discover=discover_tap),
}
"""In the order in which they are asked."""


def discover(
    environment: Environment, sandbox: Sandbox, byte_code: Path, part: SuitePart = WHOLE
) -> RepoProfile:
    """Run the suite twice; tests that pass both times are kept, others excluded with a reason.

    The first framework under which a test passes is taken. Raises `RepoError` when none does.
    """
    tree, part = environment.tree, part.within(environment.tree)
    asked = [f for f in FRAMEWORKS.values() if f.may_run(tree)] or list(FRAMEWORKS.values())[:1]
    byte_code.mkdir(parents=True, exist_ok=True)
    for framework in asked:
        found = framework.discover(environment, sandbox, byte_code, framework is asked[-1], part)
        if found is not None:
            return found
    raise RepoError("discovery: no test framework finds a passing test")
