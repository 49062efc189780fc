"""Perl: read by `perl_source`; what it is not certain of counts as unknown."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from selfplay.repo.languages.perl_functions import list_perl_functions
from selfplay.repo.languages.perl_source import SUFFIXES, plain_code
from selfplay.repo.languages.python_functions import FunctionInfo
from selfplay.repo.languages.python_modules import shadows_module
from selfplay.sandbox.base import Environment

_STEERING = frozenset({".proverc", ".prove", ".perlrc", "sitecustomize.pl"})
_RUNNER = frozenset({"Test", "Test2", "TAP", "App", "Exporter.pm", "Carp.pm"})
_BUILD_FILES = frozenset({"makefile.pl", "build.pl"})


class Perl:
    """Modules, programs and test files."""

    name = "Perl"
    suffixes = SUFFIXES

    def is_source(self, path: str) -> bool:
        """Modules and programs; neither test files nor those that build the project."""
        return not path.endswith(".t") and PurePosixPath(path).name.lower() not in _BUILD_FILES

    def functions(self, source: str, path: str) -> list[FunctionInfo]:
        """Named subs; [] when the file cannot be read for certain."""
        return list_perl_functions(source, path)

    def is_valid(self, source: str) -> bool:
        """Always: to know, Perl would have to be run."""
        return True

    def same_code(self, left: str, right: str) -> bool:
        """Whether they are equal but for comments, POD and layout; unread ones must be equal."""
        code = plain_code(left)
        return left == right or (code is not None and code == plain_code(right))

    def normal_form(self, source: str) -> str:
        """The text itself: fingerprints of stored bugs were made of it."""
        return source

    def without_bodies(self, source: str) -> str | None:
        """None: of this language, whole files are taken."""
        return None

    def steers(self, path: str) -> bool:
        """Settings of `prove`, and what perl runs at its start."""
        return PurePosixPath(path).name in _STEERING

    def shadows(self, path: str, environment: Environment) -> bool:
        """Modules of the test runner and of the language itself."""
        if not path.endswith((".pm", ".pl")):
            return shadows_module(path, environment)
        parts = PurePosixPath(path).parts
        inside = PurePosixPath(*(parts[1:] if parts[0] in ("lib", "blib") and parts[1:] else parts))
        if inside.parts[0] in _RUNNER or (len(inside.parts) == 1 and inside.name[0].islower()):
            return True  # lower case: the language's own pragmas
        return any((folder / inside).exists() for folder in _perl_folders())


@cache
def _perl_folders() -> tuple[Path, ...]:
    """Where this machine keeps Perl's own modules; () without any."""
    usr = Path("/usr")
    patterns = ("share/perl*", "share/perl/*", "lib/*/perl*", "lib/*/perl/*", "lib/*/perl5/*")
    return tuple(folder for pattern in patterns for folder in usr.glob(pattern))
