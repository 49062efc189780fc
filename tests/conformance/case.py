"""What a case of the conformance suite is: one artifact, fix patch or look at a sealed tree.

A case takes the sound bug of its repository (`projects.py`) and changes exactly one thing. `want`
is the verdict, with its reason code:

    artifact    "valid", "CHECK/REASON" (invalid), "undecided CHECK/REASON"
    fix         "resolved", "REASON" (not resolved), "errored" (no reward)
    look        "sealed", "leaks"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

Edit = str | None | Callable[[str], str]
"""A file's new text, None to delete it, or what makes the new text of the old one."""
Edits = Mapping[str, Edit]
Patch = Edits | str
"""Edits to be made into a patch, or the very text of one."""
GOLD = "the gold patch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What all cases have. `source` names the rule that is tried (docs/conformance.md)."""

    kind: ClassVar[str]
    name: str
    repo: str
    want: str
    source: str = ""

    @property
    def id(self) -> str:
        """Name of the case in a test report."""
        return f"{self.kind} in {self.repo}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactCase(Case):
    """An artifact; what is not given is as in the repository's sound bug.

    hides       tests that the weakening removes, where `weakening` does not say otherwise
    limits      as in `Limits`
    fault_at    the sandbox fails from this run on (0: the first)
    """

    kind: ClassVar[str] = "artifact"
    bug: Patch | None = None
    weakening: Patch | None = None
    hides: tuple[str, ...] | None = None
    test_files: tuple[str, ...] | None = None
    script: str | None = None
    parser: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    fault_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FixCase(Case):
    """A fix patch, or edits of the tree that a solver sees. `earlier` is graded before it."""

    kind: ClassVar[str] = "fix"
    fix: Patch
    earlier: Patch | None = None
    timeout_s: float = 90.0
    fault_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookCase(Case):
    """A command of a solver that looks for the answer, in a tree that was littered before sealing.

    litter      left-overs: path -> text, where {original} stands for the original source
    secret      what the command must not print; it does print it in the unsealed tree
    """

    kind: ClassVar[str] = "look"
    command: str
    secret: str
    litter: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Cases about one rule. `source` holds for those that name none themselves."""

    title: str
    source: str
    cases: tuple[Case, ...]


def swap(old: str, new: str) -> Edit:
    """Replace a text that must occur exactly once."""

    def edit(text: str) -> str:
        assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
        return text.replace(old, new)

    return edit


def both(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(text: str) -> str:
        for each in edits:
            assert callable(each)
            text = each(text)
        return text

    return edit


def top(code: str) -> Edit:
    """Code at the beginning of a file."""
    return lambda text: f"{code}\n{text}"


def bottom(code: str) -> Edit:
    """Code at the end of a file."""
    return lambda text: f"{text}\n{code}\n"
