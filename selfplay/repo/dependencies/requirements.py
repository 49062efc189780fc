"""What a project declares that it needs: from texts to requirements that pip may be given.

Pure functions: nothing of the project is run, no file is opened. A project is a stranger, so what
comes out of here names packages of the user's own index, and nothing else: no options, no URLs, no
paths. `repo.declarations` reads the formats, `repo.packages` installs.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

TEST_GROUP = re.compile(r"(unit|py|run|hatch)?-?tests?(ing|suite|s)?(-.*)?|.*-tests?(ing)?")
"""Names of extras and groups that are for tests: test, testing, unittest, test-extras, dev-test."""
DEV_GROUP = re.compile(r"dev(el|elop|elopment|elopers?)?(-.*)?|all-dev|default|ci")
"""Taken where there is no test group that holds anything."""
NOT_TESTS = re.compile(r"(.*-)?(docs?|lint(ing|ers?)?|typ(es|ing)|mypy|bench(marks?)?)(-.*)?")
TOOLS_OF_OURS = frozenset({"pytest", "coverage", "pluggy", "iniconfig"})
"""In every environment, in versions that the probe knows (and the two that go with pytest)."""
SKIPPED: dict[str, re.Pattern[str]] = {
    reason: re.compile("|".join(patterns))
    for reason, patterns in {
        "measures coverage, as our probe does": (
            "pytest-cov(er|erage)?",
            "covdefaults",
            "nose-cov",
        ),
        "changes the order, number or output of test runs": (
            "pytest-(sugar|clarity|icdiff|pretty|rich|tldr|instafail|html|reportlog|spec|enabler)",
            "pytest-(randomly|random-order|reverse|rerunfailures|retry|repeat|picked|testmon)",
            "pytest-(azurepipelines|github-actions-annotate-failures|travis-fold|watch|watcher)",
        ),
        "checks style or types, not behaviour": (
            "pytest-(flake8|flakes|black.*|mypy|isort|pylint|ruff|pydocstyle|pycodestyle|pep8)",
            "pytest-checkdocs|black|blacken-docs|flake8.*|pylint.*|ruff|isort|mypy|pyright|ty|pyre.*",
            "basedpyright|pep8-naming|pydocstyle|pyupgrade|autopep8|autoflake|yapf|doc8|codespell",
            "docformatter|interrogate|bandit|vulture|pre-commit.*|prek|types-.*|.*-stubs|darglint",
            "check-manifest|docutils-stubs|twine|safety|pip-audit|deptry|slotscheck|pytype|radon",
        ),
        "builds, releases or runs the project": (
            "tox.*|nox.*|hatch|poetry|pdm|uv|flit|build|bump2version|bumpversion|bumpver|invoke",
            "zest[.-]releaser.*|towncrier|commitizen|cibuildwheel|auditwheel|pip|pip-tools|virtualenv",
            "codecov|coveralls|python-semantic-release|cogapp|asv|pytest-codspeed|jupyter.*|notebook",
            "wheel|gitchangelog|gitpython|pyinstaller|pyoxidizer|tbump|ghp-import",
        ),
        "makes documentation": (
            "sphinx.*|furo|mkdocs.*|mkdocstrings.*|readme-renderer|.*-sphinx-theme|myst-.*|numpydoc",
            "sphinxcontrib.*|pdoc3?|nbsphinx|recommonmark|portray|jaraco-packaging|rst-linker",
        ),
        "is too heavy for what it brings": (
            "torch.*|tensorflow.*|jax.*|keras|pyspark|apache-.*|transformers|datasets|ray|nvidia-.*",
            "playwright|selenium|pytest-(playwright|selenium)|pyqt\\d*|pyside\\d*|mxnet|opencv-.*",
        ),
    }.items()
}
"""Reasons for leaving out what a project asks for; the names are canonical (PEP 503)."""
_OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
ARCHIVE = re.compile(r".*\.(whl|zip|tar|gz|bz2|xz|tgz|egg)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What one file says: the project's name or "", requirements at run time, and by group.

    python      versions of Python that it asks for (PEP 440's specifiers), "" for any
    tried       versions of Python that its classifiers name, such as "3.8"
    """

    name: str = ""
    python: str = ""
    tried: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Requirements that pip may be given. `skipped`: what was left out, with its reason; `python`,
    `tried`: see `Declaration`; `pytest`: what it asks of pytest that a version of ours meets."""

    name: str
    python: str = ""
    tried: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    testing: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    pytest: str = ""


def select(declarations: Sequence[Declaration]) -> Declared:
    """What the tests of a project need, from all of its files, the most trustworthy first.

    Of two requirements on one package the first counts, and run time comes before tests: two files
    that pin it differently must not make it uninstallable.
    """
    name = next((d.name for d in declarations if d.name), "")
    groups: dict[str, tuple[str, ...]] = {}
    for declaration in declarations:
        for group, lines in declaration.groups.items():
            key = canonicalize_name(group)
            groups[key] = (*groups.get(key, ()), *lines)
    chosen = _Chosen(canonicalize_name(name), groups)
    chosen.take((line for d in declarations for line in d.runtime), chosen.runtime)
    for pattern in (TEST_GROUP, DEV_GROUP):
        for group, lines in groups.items():
            if pattern.fullmatch(group) and not NOT_TESTS.fullmatch(group):
                chosen.take(lines, chosen.testing)
        if chosen.testing:
            break
    return Declared(
        name=name,
        python=next((d.python for d in declarations if d.python), ""),
        tried=next((d.tried for d in declarations if d.tried), ()),
        runtime=tuple(str(found) for found in chosen.runtime.values()),
        testing=tuple(
            str(found) for key, found in chosen.testing.items() if key not in chosen.runtime
        ),
        skipped=chosen.skipped,
        pytest=next(filter(None, map(_usable, chosen.pytest)), ""),
    )


def _usable(asked: Requirement) -> str:
    """A requirement on pytest as pip takes it, "" where no version of ours meets it."""
    parts = range(10)
    ours = (f"{major}.{minor}.{patch}" for major in (8, 9) for minor in parts for patch in parts)
    fits = asked.specifier and any(asked.specifier.contains(version) for version in ours)
    return f"pytest{asked.specifier}" if fits else ""


def refused_python(declared: Declared) -> str:
    """Where a project asks for another Python than the one that runs its tests: which; else ""."""
    try:
        asked = SpecifierSet(declared.python)
    except InvalidSpecifier:
        return ""
    if asked.contains(platform.python_version(), prereleases=True):
        return ""
    return f"it asks for Python {declared.python}, and its tests run under {_OURS}"


def other_python(declared: Declared) -> str:
    """Why a project may need another Python: it asks for one, or the newest that it names is older
    than the one that runs its tests; "" where nothing says so."""
    newest = max((tuple(map(int, version.split("."))) for version in declared.tried), default=())
    if newest and newest < sys.version_info[:2] and not refused_python(declared):
        named = ".".join(map(str, newest))
        return f"the newest Python that it names is {named}, and its tests run under {_OURS}"
    return refused_python(declared)


class _Chosen:
    """Requirements by canonical name, as they are taken."""

    def __init__(self, project: str, groups: Mapping[str, Sequence[str]]) -> None:
        self.project, self.groups = project, groups
        self.runtime: dict[str, Requirement] = {}
        self.testing: dict[str, Requirement] = {}
        self.skipped: dict[str, str] = {}
        self.pytest: list[Requirement] = []
        self._entered: set[str] = set()

    def take(self, lines: Iterable[str], into: dict[str, Requirement]) -> None:
        for line in lines:
            requirement = parse(line)
            if isinstance(requirement, str):
                self.skipped[line] = requirement
                continue
            if not applies(requirement):
                continue
            key = canonicalize_name(requirement.name)
            if key == self.project:
                self._take_own(requirement, into)
                continue
            reason = reason_to_skip(key) if into is not self.runtime else None
            if key == "pytest":
                self.pytest.append(requirement)
            if reason or key in TOOLS_OF_OURS:
                if reason:
                    self.skipped[key] = reason
                continue
            requirement.marker = None
            if key in into:
                into[key].extras |= requirement.extras
            else:
                into[key] = requirement

    def _take_own(self, requirement: Requirement, into: dict[str, Requirement]) -> None:
        """`project[test]` among a project's own requirements means: that extra, too."""
        for extra in sorted(canonicalize_name(extra) for extra in requirement.extras):
            if extra not in self._entered:
                self._entered.add(extra)
                self.take(self.groups.get(extra, ()), into)


def parse(line: str) -> Requirement | str:
    """A requirement that names a package of the index, or why this line is none.

    "hypothesis>=6; python_version<'4'" -> Requirement · "./dist/x.whl", "-e .", "x @ https://..."
    -> the reason for leaving it out
    """
    text = line.strip()
    if text.startswith("-"):
        return "an option of pip"
    try:
        requirement = Requirement(text)
    except (InvalidRequirement, RecursionError):
        return "no name of a package with versions"
    if requirement.url is not None or "/" in text.partition(";")[0]:
        return "a URL or a path"
    if ARCHIVE.fullmatch(requirement.name):
        return "the name of a file"
    return requirement


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether a requirement holds for this interpreter and machine (and `extra`)."""
    if requirement.marker is None:
        return True
    try:
        return bool(requirement.marker.evaluate({"extra": extra}))
    except (UndefinedComparison, UndefinedEnvironmentName, ValueError):
        return False


def reason_to_skip(name: str) -> str | None:
    """Why a package (canonical name) is not installed for tests, None where it is."""
    return next((why for why, names in SKIPPED.items() if names.fullmatch(name)), None)


def without_versions(requirements: Iterable[str]) -> tuple[str, ...]:
    """The same packages in any version: "a[b]==1.0" -> "a[b]"."""
    found = []
    for text in requirements:
        requirement = Requirement(text)
        extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        found.append(f"{requirement.name}{extras}")
    return tuple(found)
