"""The picture of a run: of real rounds, and lines where nothing can be redrawn."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from selfplay.commands import watch
from selfplay.commands.live import LiveView
from selfplay.commands.watch import RunWatcher, open_watcher
from selfplay.config import MetricsConfig, TrainConfig
from selfplay.types import SolveTask

from .conftest import MakeGame
from .game import BUG_ROUND, FIX_ROUND, NOTHING


def picture(view: LiveView) -> str:
    out = io.StringIO()
    Console(file=out, width=110).print(view)
    return out.getvalue()


def test_a_run_is_shown_as_it_goes(game: MakeGame) -> None:
    played = game(inject=[BUG_ROUND], solve=[FIX_ROUND, NOTHING], group_size=2, learner=True)
    view = LiveView("here", 3, Console(file=io.StringIO()))
    view.use_of_sandboxes = lambda: (1, 2)
    assert "0/3 steps" in picture(view) and "sandboxes 1/2" in picture(view)
    played.controller._watcher = view
    view.phase(7, "solve")
    played.controller.run(0, 1)
    shown = picture(view)
    assert "1/3 steps" in shown and "rounds: 1 solve   [7:solve]" in shown
    (row,) = [line for line in shown.splitlines() if "sample-ledger" in line]
    assert row.split()[1:-1] == ["sample-ledger", "direct", "1", "100%", "2", "50%"]
    assert "-    if rest * 2 >= step" in shown and "+    if rest * 2 > step" in shown
    assert "valid 100%, solved 50%" in shown
    view.step_done(2, played.rows()[0])
    assert "valid 100%, solved 50%" in picture(view), "below a full bar"
    view.step_done(1, {"learner/staleness": 0.5, "learner/staleness_max": 2.0})
    assert "staleness 0.5 (at most 2)" in picture(view)


@pytest.mark.parametrize("alone", [False, True])
def test_real_bugs_are_shown_by_their_origin(
    game: MakeGame, bugs: dict[str, SolveTask], alone: bool
) -> None:
    """As the corpus and the report name them; what is solved again is "replayed"."""
    keys: dict[str, Any] = {"group_size": 2, "min_solve_groups": 1, "human_share": 0.5}
    played = game(inject=[BUG_ROUND, NOTHING], solve=[FIX_ROUND, NOTHING], num_tasks=1, **keys)
    sampler = None if alone else played.curriculum.sampler
    played.curriculum = replace(played.curriculum, sampler=sampler, human=(bugs["compound"],))
    played.controller._watcher = view = LiveView("here", 3, Console(file=io.StringIO()))
    played.controller.run(0, 2)
    lines = [line for line in picture(view).splitlines() if "sample-ledger" in line]
    shown = {line.split()[2]: line.split()[3:-1] for line in lines}
    if alone:
        assert shown == {"given": ["0", "-", "4", "0%"]}
    else:
        assert set(shown) == {"direct", "mined", "replayed"}
        assert shown["mined"][:3] == ["0", "-", "4"]


def test_without_a_terminal_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig()
    assert isinstance(open_watcher(config), RunWatcher)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(watch.sys, "stderr", Terminal())
    assert isinstance(open_watcher(config), LiveView)
    assert isinstance(open_watcher(replace(config, metrics=MetricsConfig(live=False))), RunWatcher)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_watcher(config), RunWatcher)
