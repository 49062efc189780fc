"""Bounds that several parts of the configuration state: a key, its value, and what it must be."""

from __future__ import annotations

from collections.abc import Sequence

from selfplay.errors import UserError


def at_least(config: object, part: str, bound: float, *names: str) -> None:
    """Raises `UserError` where a value is below `bound` or no number; None is left alone."""
    for name, value in _given(config, names):
        if not value >= bound:
            raise UserError(f"{part}{name}={value}: must be at least {bound:g}")


def above(config: object, part: str, bound: float, *names: str) -> None:
    """Raises `UserError` where a value is not above `bound`; None is left alone."""
    for name, value in _given(config, names):
        if not value > bound:
            raise UserError(f"{part}{name}={value}: must be above {bound:g}")


def share(config: object, part: str, *names: str) -> None:
    """Raises `UserError` where a value is outside 0 .. 1; None is left alone."""
    for name, value in _given(config, names):
        if not 0 <= value <= 1:
            raise UserError(f"{part}{name}={value}: must be from 0 to 1")


def one_of(config: object, part: str, name: str, choices: Sequence[str]) -> None:
    """Raises `UserError` for a word that is none of `choices`."""
    value = getattr(config, name)
    if value not in choices:
        raise UserError(f"{part}{name}={value!r}: must be {' or '.join(choices)}")


def _given(config: object, names: Sequence[str]) -> list[tuple[str, float]]:
    values = [(name, getattr(config, name)) for name in names]
    return [(name, value) for name, value in values if value is not None]
