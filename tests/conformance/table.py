"""The cases as a document: docs/conformance.md."""

from __future__ import annotations

from collections.abc import Iterable

from .case import Case, Family

DOCUMENT = "conformance.md"
HEAD = """\
# Conformance: what must be refused, and what must not

Each line is an artifact, a fix patch or a look at a sealed tree that breaks one rule or tries one
cheat (or breaks none), with the verdict that the system must give. `tests/conformance` holds the
cases and plays each on both sandboxes; the normal tests play them once, and

    python scripts/conformance.py --repetitions 3

plays them repeatedly, without any cached run in common, on plain bubblewrap, forked runs and
Docker. This file is written by `python scripts/conformance.py --write-docs`.

The rules are those of *Toward Training Superintelligent Software Agents through Self-Play SWE-RL*
(arXiv 2512.18552): a check of the validation by its name, grading, injection and how injectors may
cheat; "earlier systems" are defects that shipped elsewhere. Reasons are explained in
`docs/validation.md`.
"""


def table(families: Iterable[Family]) -> str:
    """The whole document."""
    parts = [HEAD]
    for family in families:
        parts.append(
            f"\n## {family.title}\n\n| repository | case | rule | verdict |\n|---|---|---|---|\n"
        )
        parts += [row(family, case) for case in family.cases]
    return "".join(parts)


def row(family: Family, case: Case) -> str:
    """One case as a line of its family's table."""
    name = case.name.replace("|", "\\|")
    good = case.want in ("valid", "resolved", "sealed")
    want = f"**{case.want}**" if good else f"`{case.want}`"
    return f"| {case.repo} | {name} | {case.source or family.source} | {want} |\n"
