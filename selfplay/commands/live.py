"""A run in a terminal, redrawn as it goes: what each round is at, who solves what, the last bug."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from selfplay.commands.output import plain
from selfplay.curriculum.step import StepResult

MAX_ROWS = 8
"""Of the table of repositories and strategies, those with the most injections, then attempts."""
MAX_DIFF_LINES = 16


class LiveView:
    """A `Watcher` with a picture; `use_of_sandboxes` tells (busy workers, all workers)."""

    def __init__(self, name: str, steps: int, console: Console | None = None) -> None:
        self._name, self._steps = name, steps
        self._console = console or Console(file=sys.stderr)
        self._live = Live(self, console=self._console, refresh_per_second=2, transient=False)
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._done = 0
        self._doing = "starting"
        self._phases: dict[int, str] = {}
        self._row: Mapping[str, float] = {}
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._last_bug = ("", "")
        self.use_of_sandboxes: Callable[[], tuple[int, int]] | None = None

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def phase(self, step: int, name: str) -> None:
        """A phase of a round, or of the step that learns, begins."""
        with self._lock:
            if name in ("learn", "save"):
                self._doing = f"step {step + 1}: {name}"
            else:
                self._phases[step] = name

    def round_done(self, number: int, result: StepResult) -> None:
        """Count what a round gave; it waits for its step."""
        with self._lock:
            self._phases[number] = "done"
            for injection in result.injections:
                if not injection.outcome.is_left_out:
                    self._count(injection.task.repo, injection.task.strategy, "asked")
                if injection.outcome.solve_task is not None:
                    self._count(injection.task.repo, injection.task.strategy, "valid")
                    bug = injection.outcome.solve_task
                    self._last_bug = (bug.bug_id, bug.artifact.bug_patch)
            strategies: dict[str, str] = dict(result.given)
            strategies |= {i.bug_id: i.task.strategy for i in result.injections if i.bug_id}
            for group in result.attempts:
                for attempt in group:
                    strategy = strategies.get(attempt.task.bug_id, "replayed")
                    self._count(attempt.task.repo, strategy, "tried")
                    if attempt.outcome.resolved:
                        self._count(attempt.task.repo, strategy, "solved")

    def step_done(self, step: int, row: Mapping[str, float]) -> None:
        """A step is on disk."""
        with self._lock:
            self._done, self._row, self._doing = step + 1, row, "playing"
            over = sorted(n for n, phase in self._phases.items() if phase == "done")
            for number in over:  # those that wait for the next step are few: shown when they play
                del self._phases[number]

    def evaluating(self, when: str, done: int, total: int) -> None:
        """An evaluation before or after training moves on."""
        with self._lock:
            self._doing = f"evaluate {when} {done}/{total}"

    def _count(self, repo: str, strategy: str, what: str) -> None:
        self._counts.setdefault((repo, strategy), Counter())[what] += 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            yield self._picture()

    def _picture(self) -> Panel:
        bar = Padding(ProgressBar(total=max(1, self._steps), completed=self._done), 0)
        parts: list[RenderableType] = [
            self._head(),
            bar,
        ]
        if self._phases:
            parts.append(_rounds(self._phases))
        if self._row:
            parts.append(Text(_figures(self._row)))
        if self._counts:
            parts.append(self._table())
        name, patch = self._last_bug
        if patch:
            lines = plain(patch).splitlines()[:MAX_DIFF_LINES]
            parts.append(Text(f"last bug {name}", style="bold"))
            parts.append(Syntax("\n".join(lines), "diff", theme="ansi_dark", word_wrap=True))
        return Panel(Group(*parts), title=Text(f"selfplay {self._name}"), title_align="left")

    def _head(self) -> Text:
        minutes = (time.monotonic() - self._began) / 60.0
        text = f"{self._done}/{self._steps} steps, {minutes:.1f} min, {self._doing}"
        if self.use_of_sandboxes:
            busy, workers = self.use_of_sandboxes()
            text += f", sandboxes {busy}/{workers}"
        return Text(text)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("repository", "strategy", "injections", "valid", "attempts", "solved"):
            table.add_column(column, justify="left" if column[0] in "r" else "right")
        most = sorted(self._counts.items(), key=_rank)
        for (repo, strategy), counts in most[:MAX_ROWS]:
            table.add_row(
                Text(plain(repo)),
                strategy,
                str(counts["asked"]),
                _share(counts["valid"], counts["asked"]),
                str(counts["tried"]),
                _share(counts["solved"], counts["tried"]),
            )
        return table


def _rank(item: tuple[tuple[str, str], Counter[str]]) -> tuple[int, int, tuple[str, str]]:
    place, counts = item
    return -counts["asked"], -counts["tried"], place


def _rounds(phases: Mapping[int, str]) -> Text:
    counts = Counter(phases.values())
    named = ", ".join(f"{number} {phase}" for phase, number in sorted(counts.items()))
    each = " ".join(f"{number}:{phase}" for number, phase in sorted(phases.items())[:12])
    return Text(f"rounds: {named}   [{each}]")


def _figures(row: Mapping[str, float]) -> str:
    tokens = row.get("play/num_tokens", 0.0) / max(1e-9, row.get("curriculum/step_s", 0.0))
    text = (
        f"last step: {row.get('curriculum/step_s', 0.0):.0f} s, {tokens:.0f} tok/s, valid "
        f"{row.get('injector/valid_rate', 0.0):.0%}, solved {row.get('solver/solve_rate', 0.0):.0%}"
    )
    if "learner/staleness" in row:
        text += f", staleness {row['learner/staleness']:.1f} (at most "
        text += f"{row.get('learner/staleness_max', 0.0):.0f})"
    if row.get("curriculum/num_alarms"):
        text += f", {row['curriculum/num_alarms']:.0f} alarms"
    return text


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"
