"""`controller.json`: what the controller goes on from after a kill, for each of the last steps.

It is written before the checkpoint of its step; a step without one on disk is not looked up.
"""

from __future__ import annotations

from typing import Any

from selfplay.curriculum.rounds.ledger import Ledger
from selfplay.curriculum.rounds.tripwires import Tripwires
from selfplay.run_dir import RunDir

NAME = "controller.json"
NUM_KEPT = 10
"""Steps: more than there are checkpoints that a run may have to go back to."""


def write_state(run_dir: RunDir, step: int, ledger: Ledger, alarms: Tripwires | None) -> None:
    """Add what holds once `step` is on disk; later steps, of a try that was killed, are gone."""
    steps = _steps(run_dir)
    steps = {number: state for number, state in steps.items() if number < step}
    steps[step] = ledger.to_json() | ({"alarms": alarms.to_json()} if alarms else {})
    kept = {str(number): steps[number] for number in sorted(steps)[-NUM_KEPT:]}
    run_dir.write_json(NAME, {"steps": kept})


def read_state(
    run_dir: RunDir, start: int, num_slots: int, per_step: int, alarms: Tripwires | None
) -> Ledger:
    """The ledger with which step `start` begins, and what the alarms remember; of a run that has
    none, that of a run whose rounds were consumed in order."""
    stored = _steps(run_dir).get(start - 1)
    if stored is None:
        return Ledger(num_slots=num_slots, next=start * per_step)
    if alarms and "alarms" in stored:
        alarms.restore(stored["alarms"])
    return Ledger.from_json(num_slots, stored)


def _steps(run_dir: RunDir) -> dict[int, dict[str, Any]]:
    document = run_dir.read_json(NAME) or {"steps": {}}
    return {int(number): state for number, state in document["steps"].items()}
