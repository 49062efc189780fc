"""Ways to run a repository's tests under pytest, from its own settings to what works elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from selfplay.repo.dependencies.inside.django_runner import runner_of
from selfplay.repo.dependencies.venv import DJANGO, GUARD
from selfplay.repo.discovery.kept_options import STRICT, split_options, without_refused
from selfplay.repo.discovery.pytest_config import PytestConfig, inner_configs, root_config
from selfplay.sandbox.base import WORKDIR

LENIENT = (
    *("filterwarnings=", "required_plugins=", "minversion="),
    *("strict=false", "strict_config=false", "strict_markers=false"),
)
"""Settings that make a run fail for what is not a fault of the code: warnings of a newer Python or
library, plugins that only measure or print, marks of such plugins."""
WIDE = ("python_files=test*.py *test.py *tests.py", "testpaths=")
"""What unittest would find, and more, wherever it lies."""
DJANGO_FILES = ("-o", "python_files=test*.py")
"""What Django's runner finds."""
MAX_INNER = 3
"""Configurations of subfolders that are tried where the root has none."""
NO_CONFIG = "/dev/null"


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestSettings:
    """How pytest is run. `options`: of discovery alone, for later runs name their files.

    kept        options of the project's own addopts (see `kept_options`)
    config      what -c names; "" where pytest finds the same file for every set of test files
    lenient     without the project's settings that turn warnings into errors and the like
    guard       with `guard.py`
    django      with `django_tests.py`
    """

    options: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    config: str = ""
    lenient: bool = False
    guard: bool = False
    django: bool = False

    def guarded(self) -> PytestSettings:
        """The same behind the guard."""
        return replace(self, guard=True)

    def by_path(self) -> PytestSettings:
        """The same with test files imported by their path, not by the name of a module."""
        kept = (word for word in self.kept if not word.startswith("--import-mode"))
        return replace(self, kept=(*kept, "--import-mode=importlib"))

    def accepted(self, complaint: str) -> PytestSettings:
        """The same without options that pytest complains of; equal where it does of none."""
        return replace(self, kept=without_refused(self.kept, complaint))

    def variables(self, given: Mapping[str, str]) -> dict[str, str]:
        """What every run needs in its environment, above the `given` variables."""
        found: dict[str, str] = {}
        words = [f"-c={self.config}"] if self.config else []
        words += self.kept
        if self.lenient:
            words = [word for word in words if not STRICT.fullmatch(word)]
            words += [part for setting in LENIENT for part in ("-o", setting)]
        if words:
            text = f"{given.get('PYTEST_ADDOPTS', '')} {shlex.join(words)}"
            found["PYTEST_ADDOPTS"] = text.strip()
        plugins = [GUARD] * self.guard + [*DJANGO] * self.django
        if plugins:
            found["PYTEST_PLUGINS"] = ",".join(plugins)
        return found


def attempts(tree: Path) -> Iterator[PytestSettings]:
    """Settings to try on a tree, the project's own first, each once."""
    files = tuple(word for setting in WIDE for word in ("-o", setting))
    plain = [("", root_config(tree))]
    inner = inner_configs(tree)
    if plain[0][1].file:
        plain = [(f"{WORKDIR}/{plain[0][1].file}" if inner else "", plain[0][1])]
    elif inner:
        plain = [(f"{WORKDIR}/{found.file}", found) for found in inner[:MAX_INNER]]
        nothing = (NO_CONFIG, PytestConfig())
        plain.insert(0 if len(inner) > 1 else 1, nothing)
    tried = {
        PytestSettings(options=options, lenient=lenient, kept=kept, config=config): None
        for options in ((), files)
        for lenient in (False, True)
        for config, found in plain
        for kept in (((kept_options(tree, found)[0],) if not options else ()) + ((),))
    }
    if runner_of(tree) is None or any("DJANGO_SETTINGS" in key for key in plain[0][1].keys):
        yield from tried
        return
    for settings in tried:
        yield replace(settings, options=settings.options or DJANGO_FILES, django=True)


@cache
def kept_options(tree: Path, config: PytestConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(options of the project's addopts that hold, what is left out of them)."""
    return split_options(config.addopts, lambda word: (tree / word).exists())


def settings_record(tree: Path, settings: PytestSettings) -> dict[str, str]:
    """What a profile says of the settings that were chosen."""
    configs = {
        f"{WORKDIR}/{found.file}": found for found in (root_config(tree), *inner_configs(tree))
    }
    config = configs.get(settings.config, PytestConfig()) if settings.config else root_config(tree)
    kept, left_out = kept_options(tree, config)
    refused = [option for option in kept if option not in settings.kept]
    return {
        "config": config.file,
        "kept": shlex.join(settings.kept),
        "left_out": shlex.join([*left_out, *refused]),
    }


def moved_variables(variables: Mapping[str, str], old: Path, new: Path) -> dict[str, str]:
    """The variables that were found for one tree, for another state of the same project: with its
    own addopts, and without a configuration file that is not there."""
    text = variables.get("PYTEST_ADDOPTS", "")
    if not text or old == new:
        return dict(variables)
    before, after = (shlex.join(kept_options(tree, root_config(tree))[0]) for tree in (old, new))
    if before and before in text:
        text = text.replace(before, after)
    for word in shlex.split(text):
        file = word.removeprefix(f"-c={WORKDIR}/")
        if file != word and not (new / file).is_file():
            text = text.replace(shlex.quote(word), "")
    return {**variables, "PYTEST_ADDOPTS": text.strip()}
