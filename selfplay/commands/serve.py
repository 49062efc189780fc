"""`selfplay serve`: the bugs of a suite as an environment behind HTTP."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfplay.commands.compose import sandbox_pool
from selfplay.commands.output import say
from selfplay.commands.selfcheck import without_leaks
from selfplay.commands.suites import prepare_suite, read_tasks
from selfplay.config import ReposConfig, SandboxConfig, ScaffoldConfig, ServeConfig
from selfplay.curriculum.evaluation import LeftOut
from selfplay.errors import UserError
from selfplay.serving.desk import Desk
from selfplay.serving.exam import Exam
from selfplay.serving.http import EnvServer

CONFIG, SCHEMA = "serve", ServeConfig
HELP = """
keys: suite=PATH (as evaluate's), num_tasks=N, host=127.0.0.1, port=8000 (0: any), max_episodes=64,
      idle_s=600, max_steps=128, scaffold.max_prompt_tokens=640, sandbox=...
OpenEnv's protocol: POST /reset, /step, GET /state, /health, WebSocket /ws; also POST /grade and
GET /tasks. Answers, patches and commands are judged and run in sandboxes; docs/ecosystem.md has a
client. Ctrl-C or SIGTERM ends it: what is being judged gets no verdict, and every sandbox ends.
"""


def run(config: ServeConfig) -> int:
    """Serve until it is interrupted; 0."""
    with open_exam(
        config.suite, config.num_tasks, config.sandbox, config.repos, config.scaffold
    ) as exam:
        desk = Desk(
            exam,
            max_episodes=config.max_episodes,
            idle_s=config.idle_s,
            max_steps=config.max_steps,
        )
        try:
            server = EnvServer(config.host, config.port, desk, 2 * config.max_episodes)
        except OSError as error:
            where = f"host={config.host} port={config.port}"
            raise UserError(f"{where}: cannot listen there ({error.strerror})") from None
        told = f"{len(exam.tasks)} bugs at http://{config.host}:{server.server_port}"
        say(told + (f"; left out: {', '.join(exam.left_out)}" if exam.left_out else ""))
        try:
            with sigterm_as_interrupt():
                server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("ended")
        finally:
            server.server_close()
            desk.close()
    return 0


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """What service managers and containers send ends as Ctrl-C does, not in the middle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def open_exam(
    suite: str | Path,
    num_tasks: int | None = None,
    sandbox: SandboxConfig | None = None,
    repos: ReposConfig | None = None,
    scaffold: ScaffoldConfig | None = None,
) -> Iterator[Exam]:
    """A suite's exam, its sandboxes audited; what it holds is closed at the end.

    A repository that cannot be had is left out, and one in which a solver could read the answers
    here: both are told, by name and number, and in `Exam.left_out`. Raises `UserError` where none
    can be had, `InfrastructureError` where a solver could read the answers in each.
    """
    tasks = read_tasks(Path(suite))[:num_tasks]
    if not tasks:
        raise UserError(f"suite={suite}: holds no task")
    with sandbox_pool(sandbox or SandboxConfig()) as pool:
        problems: dict[str, str] = {}
        prepared = prepare_suite(tasks, repos or ReposConfig(), pool, problems)
        if not prepared:
            raise UserError(next(iter(problems.values())))
        solve_tasks = [task.solve_task for task in tasks]
        _, leaky = without_leaks(solve_tasks, prepared, pool)
        counts = Counter(task.repo for task in solve_tasks)
        lost: dict[str, LeftOut] = {
            n: {"num_tasks": counts[n], "reason": why} for n, why in problems.items()
        }
        yield Exam(solve_tasks, prepared, pool, scaffold or ScaffoldConfig(), {**lost, **leaky})
