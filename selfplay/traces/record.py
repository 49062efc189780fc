"""The tests of one repository, recorded, and what is kept of them.

The tests run plainly first, then traced twice: the second time in another process with another hash
seed. A test whose verdict is not the plain one's, or whose recordings differ, is left out whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from selfplay.bugs.test_runs.scripts import can_record
from selfplay.errors import UserError
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.base import Sandbox
from selfplay.traces.recordings import NOTHING, Bounds, Recorder, TestRecording
from selfplay.traces.replay import Replay, checked_again, judged

BATCH = 100
"""Tests of one run."""


@dataclass(kw_only=True)
class Recorded:
    """What is kept of one repository, how many tests are not, by reason, and the cost.

    `cut` counts kept tests that were recorded up to a bound, by the bound. Seconds are those of the
    plain runs and of the first traced ones: `body_s` of the bodies of kept tests, `run_s` of whole
    runs, start of the interpreter included. `replay` compares the first two recordings of all
    tests, `checked` a third one with what is kept, but for `num_unchecked` tests whose third one
    was ended by the clock.
    """

    tests: list[TestRecording] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    replay: Replay = field(default_factory=Replay)
    checked: Replay = field(default_factory=Replay)
    num_unchecked: int = 0
    body_s: tuple[float, float] = (0.0, 0.0)
    run_s: tuple[float, float] = (0.0, 0.0)


def record(
    prepared: PreparedRepo,
    sandbox: Sandbox,
    tests: Sequence[str],
    bounds: Bounds,
    progress: Callable[[int], object] = lambda _: None,
    *,
    include_tests: bool = False,
    check: bool = False,
) -> Recorded:
    """Record the tests of a repository; with `check`, what is kept a third time.

    Raises `UserError` where it is not pytest that runs them.
    """
    if not can_record(prepared.profile.runner):
        raise UserError(f"{prepared.name}: only what pytest runs is traced")
    files = {f.path for f in prepared.functions}
    if include_tests:
        files.update(prepared.profile.test_files)
    recorded = Recorded()
    for start in range(0, len(tests), BATCH):
        batch = tests[start : start + BATCH]
        _record(Recorder(prepared, sandbox, batch, sorted(files), bounds), batch, recorded, check)
        progress(len(batch))
    return recorded


def _record(recorder: Recorder, tests: Sequence[str], recorded: Recorded, check: bool) -> None:
    plain, first, second = recorder.run(False, 0), recorder.run(True, 0), recorder.run(True, 1)
    third = recorder.run(True, 2).tests if check else {}
    recorded.run_s = _added(recorded.run_s, plain.seconds, first.seconds)
    for test in tests:
        untraced, kept = plain.tests.get(test), first.tests.get(test)
        why, agreed = judged(untraced, kept, second.tests.get(test))
        recorded.replay += agreed
        if why:
            recorded.left_out[why] += 1
            continue
        assert untraced is not None and kept is not None
        recorded.tests.append(kept)
        recorded.body_s = _added(recorded.body_s, untraced.seconds, kept.seconds)
        if kept.why:
            recorded.cut[kept.why] += 1
        if check:
            agreed_again = checked_again(kept, third.get(test, NOTHING))
            recorded.checked += agreed_again or Replay()
            recorded.num_unchecked += agreed_again is None


def _added(seconds: tuple[float, float], plain: float, traced: float) -> tuple[float, float]:
    return (seconds[0] + plain, seconds[1] + traced)
