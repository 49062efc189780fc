"""Procedural injector: operators on the syntax tree that edit as few characters as possible.

It feeds the warm start and baselines; it never stands in for the model in a training run.
"""

from selfplay.bug_sources.procedural.propose import (
    KINDS,
    OPERATORS,
    REMOVAL_KINDS,
    Mutation,
    by_operator,
    propose,
)

__all__ = ["KINDS", "OPERATORS", "REMOVAL_KINDS", "Mutation", "by_operator", "propose"]
