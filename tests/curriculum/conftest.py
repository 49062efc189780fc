"""A vendored sample, prepared once, and games on it. Test runs are cached for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfplay.commands.compose import make_rollout_context, prepare_repos, sandbox_pool
from selfplay.config import ReposConfig, SandboxConfig
from selfplay.curriculum.injecting import inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import InjectionTask, SolveTask, Target

from .game import REPO, SCAFFOLD, Book, Game, Move

MakeGame = Callable[..., Game]
PLACES: dict[str, tuple[str, Move]] = {
    "round_to": ("ledger/money.py", ("rest * 2 >= step", "rest * 2 > step")),
    "format_cents": ("ledger/money.py", ("if cents < 0", "if cents <= 0")),
    "compound": ("ledger/money.py", ("years * per_year", "years + per_year")),
    "Book.balance": ("ledger/book.py", ("posting.day > until", "posting.day >= until")),
    "Book.accounts": ("ledger/book.py", ("parts[:depth]", "parts[depth:]")),
}
"""Functions of the sample and a bug in each that its tests notice."""


@pytest.fixture(scope="session")
def pool() -> Iterator[SandboxPool]:
    with sandbox_pool(SandboxConfig(name="bubblewrap", num_workers=2)) as opened:
        yield opened


@pytest.fixture(scope="session")
def prepared(pool: SandboxPool) -> PreparedRepo:
    return prepare_repos([REPO], ReposConfig(), pool)[REPO]


@pytest.fixture(scope="session")
def context(pool: SandboxPool, prepared: PreparedRepo) -> RolloutContext:
    return make_rollout_context(Book(), {REPO: prepared}, pool, SCAFFOLD, Sampling())


@pytest.fixture
def game(context: RolloutContext, tmp_path: Path) -> Iterator[MakeGame]:
    """game(functions=..., inject=..., solve=..., **shape)"""
    made: list[Game] = []

    def make(name: str = "game", **keys: object) -> Game:
        made.append(Game(context, tmp_path / name, **keys))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for opened in made:
        opened.close()


@pytest.fixture(scope="session")
def bugs(context: RolloutContext) -> dict[str, SolveTask]:
    """A valid bug of each of `PLACES`, by its function."""
    found = {}
    for name, (path, move) in PLACES.items():
        task = InjectionTask(
            task_id=f"bugs/{name}",
            repo=REPO,
            strategy="direct",
            target=Target(path=path, function=name),
        )
        (injection,) = inject(replace(context, policy=Book([move])), [task], 1)
        assert injection.outcome.solve_task is not None, (name, injection.outcome.reason)
        found[name] = injection.outcome.solve_task
    return found
