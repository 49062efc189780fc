"""The cases, family by family, in the order of validation, grading and sealing."""

from __future__ import annotations

from ..case import Case, Family
from . import (
    bug,
    determinism,
    forbidden,
    inverse_mutation,
    leaks,
    listed_files,
    parser_and_script,
    parser_honesty,
    past_the_scan,
    patches,
    scope,
    source_cheats,
    tests_and_hooks,
    weakening,
)

FAMILIES: tuple[Family, ...] = (
    listed_files.FAMILY,
    scope.FAMILY,
    forbidden.FAMILY,
    parser_and_script.FAMILY,
    bug.FAMILY,
    weakening.FAMILY,
    inverse_mutation.FAMILY,
    determinism.FAMILY,
    parser_honesty.FAMILY,
    patches.FAMILY,
    tests_and_hooks.FAMILY,
    source_cheats.FAMILY,
    past_the_scan.FAMILY,
    leaks.FAMILY,
)
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family.cases)
