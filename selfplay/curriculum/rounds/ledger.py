"""Which rounds are alive, and which a step has consumed: the bounded number of slots.

A round is one batch of injections with its solver groups and its higher-order bugs, numbered from
0. One slot covers it from its first draw until the step that learns from it is on disk; there are
(max_staleness + 1) x (rounds of a step) slots. With max_staleness 0 the rounds of a step must all
be consumed before one of the next begins: that is synchronous training.

What a round knows is fixed when it begins: bugs of rounds below `before`, the lowest number that is
not consumed by then. So it draws the same after a kill, whatever others have stored meanwhile.

Example: 4 slots, 2 rounds a step. 0 1 2 3 begin, before = 0. 1 and 2 finish first: they are
consumed, 4 and 5 begin, still with before = 0, because 0 is alive. Then 0 and 3: before = 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Round:
    """A round's number, and the number below which all rounds were consumed when it began."""

    number: int
    before: int


@dataclass(kw_only=True)
class Ledger:
    """A round is alive, waits to begin again after a kill, is not begun yet, or is consumed.

    num_slots   rounds that may be alive at once
    next        number of the first round that never began
    again       rounds that were alive when a process was killed, by number
    alive       by number
    """

    num_slots: int
    next: int = 0
    again: list[Round] = field(default_factory=list)
    alive: dict[int, Round] = field(default_factory=dict)

    @property
    def floor(self) -> int:
        """The lowest number that is not consumed."""
        waiting = [*self.alive, *(round_.number for round_ in self.again)]
        return min(waiting, default=self.next)

    def begin(self, limit: int) -> Round | None:
        """Take a slot for the next round; None when all are taken, or `limit` was reached."""
        if len(self.alive) >= self.num_slots:
            return None
        if self.again:
            round_ = self.again.pop(0)
        elif self.next < limit:
            round_ = Round(number=self.next, before=self.floor)
            self.next += 1
        else:
            return None
        self.alive[round_.number] = round_
        return round_

    def consume(self, rounds: Collection[Round]) -> None:
        """Free the slots of rounds that a step has learned from."""
        for round_ in rounds:
            assert self.alive.pop(round_.number) == round_

    def to_json(self) -> dict[str, Any]:
        """The rounds that are not over; those alive begin again after a kill."""
        begun = sorted([*self.alive.values(), *self.again])
        return {
            "next": self.next,
            "begun": [[round_.number, round_.before] for round_ in begun],
        }

    @classmethod
    def from_json(cls, num_slots: int, data: Mapping[str, Any]) -> Ledger:
        """The ledger after a kill: nothing is alive."""
        begun: Sequence[Sequence[int]] = data["begun"]
        return cls(
            num_slots=num_slots,
            next=int(data["next"]),
            again=[Round(number=number, before=before) for number, before in begun],
        )
