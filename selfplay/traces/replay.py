"""How far two recordings of a test agree, and whether the test is kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from selfplay.traces.recordings import Event, TestRecording

NamedEvent = tuple[tuple[str, str], Event]
"""An event with its place by name."""
ENDED = {
    "time": "the time of its recording was up",
    "recorder": "it could not be recorded",
    "stacks": "it switches between stacks",
    "recursion": "it comes to the recursion limit",
    "tracer": "it traces by itself",
    "threads": "it starts threads",
}
"""Ends of a recording for which a test is left out. At a bound of events or bytes it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """How far two recordings agree: values told, and samples."""

    values: int = 0
    equal_values: int = 0
    samples: int = 0
    equal_samples: int = 0

    def __add__(self, other: Replay) -> Replay:
        return Replay(
            values=self.values + other.values,
            equal_values=self.equal_values + other.equal_values,
            samples=self.samples + other.samples,
            equal_samples=self.equal_samples + other.equal_samples,
        )


def judged(
    plain: TestRecording | None, first: TestRecording | None, second: TestRecording | None
) -> tuple[str, Replay]:
    """Why a test is left out ("" when it is kept), and how far its two recordings agree."""
    if plain is None or not _passed(plain):
        return "does not pass plainly", Replay()
    if first is None or second is None:
        return "the traced run did not get to its end", Replay()
    if first.outcomes != plain.outcomes or second.outcomes != plain.outcomes:
        return "its verdict changes under tracing", Replay()
    for run in (first, second):
        if run.why in ENDED:
            return ENDED[run.why], Replay()
    replay = compared(first, second)
    if first.chance != second.chance:  # two draws may agree by chance
        return "it draws at random", replay
    if replay.equal_samples < replay.samples or first.why != second.why:
        return "its recordings differ", replay
    return ("" if first.samples else "it calls nothing of the repository"), replay


def _passed(run: TestRecording) -> bool:
    return "call passed" in run.outcomes and all(o.endswith(" passed") for o in run.outcomes)


def compared(first: TestRecording, second: TestRecording) -> Replay:
    """Sample by sample, event by event; what one recording alone has differs."""
    values = equal_values = samples = equal_samples = 0
    nothing: list[NamedEvent] = []
    for one, two in zip_longest(first.named(), second.named(), fillvalue=nothing):
        samples += 1
        equal_samples += [_told(e) for e in one] == [_told(e) for e in two]
        for a, b in zip_longest(one, two):
            number = max(_num_values(a), _num_values(b))
            values += number
            equal_values += number if a and b and _told(a) == _told(b) else _num_equal(a, b)
    return Replay(
        values=values, equal_values=equal_values, samples=samples, equal_samples=equal_samples
    )


def checked_again(kept: TestRecording, again: TestRecording) -> Replay | None:
    """How far one more recording agrees with what is kept; None where it says nothing: the clock
    or a tool of the test ended it, and what it lacks is no other value."""
    return None if again.why in ENDED else compared(kept, again)


def _told(event: NamedEvent) -> tuple[Any, ...]:
    place, (kind, _, line, data, depth) = event
    return (place, kind, line, depth, data)


def _num_values(event: NamedEvent | None) -> int:
    if event is None:
        return 0
    data = event[1][3]
    return 1 if isinstance(data, str) else len(data)


def _num_equal(a: NamedEvent | None, b: NamedEvent | None) -> int:
    """Values that are equal in two events that are not."""
    if a is None or b is None or _told(a)[:4] != _told(b)[:4]:
        return 0
    one, two = a[1][3], b[1][3]
    if isinstance(one, str) or isinstance(two, str):
        return 0
    return sum(name in two and two[name] == value for name, value in one.items())
