"""Episodes of other people's trainers: opened, stepped, judged, and ended by themselves.

OpenEnv's words: `reset` opens an episode, `step` acts in it, `state` tells of it. An action is one
of

    {"answer": TEXT}    what a model says to the question; the episode is over
    {"patch": DIFF}     a fix patch against the tree of the episode; the episode is over
    {"command": BASH}   a command in a sandbox of the episode's own, on the tree that a solver sees
    {"submit": true}    the tree as the commands left it; the episode is over
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfplay.errors import InfrastructureError, PatchError, SandboxSpent, UserError
from selfplay.roles.agentic.solver import AgenticAttempt
from selfplay.sandbox.session.session import Session
from selfplay.serving.exam import Exam, Judgement

ACTIONS = ("answer", "patch", "command", "submit")


class NotFound(UserError):
    """No such episode: never opened, or expired."""


class Over(UserError):
    """The episode has its verdict."""


class Full(UserError):
    """As many episodes are open as there may be."""


@dataclass(kw_only=True)
class Attending:
    """One open episode. `lock`: one step at a time."""

    episode_id: str
    bug_id: str
    used: float
    num_steps: int = 0
    verdict: Judgement | None = None
    attempt: AgenticAttempt | None = None
    session: Session | None = None
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """End its sandbox."""
        if self.session is not None:
            self.session.close()
            self.session = None


class Desk:
    """All open episodes. Thread-safe. Raises `UserError` for what a client can mend."""

    def __init__(
        self, exam: Exam, *, max_episodes: int, idle_s: float, max_steps: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.exam = exam
        self._max, self._idle_s, self._max_steps, self._clock = (
            max_episodes,
            idle_s,
            max_steps,
            clock,
        )
        self._open: dict[str, Attending] = {}
        self._lock = threading.Lock()

    def reset(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Open an episode: `instance_id` names its bug, else `seed` draws one."""
        seed = request.get("seed")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
            raise UserError(f"seed: {seed!r} is no integer")
        bug_id = request.get("instance_id")
        if bug_id is None:
            bug_id = random.Random(seed).choice(sorted(self.exam.tasks))
        self.exam.task(str(bug_id))
        name = str(request.get("episode_id") or uuid.uuid4().hex)
        if len(name) > 255:
            raise UserError("episode_id: is longer than 255 characters")
        told = {
            "episode_id": name,
            "instance_id": bug_id,
            "messages": self.exam.messages(bug_id),
            **self.exam.told(bug_id),
        }
        self.end(name)
        self.expire()
        with self._lock:
            if len(self._open) >= self._max:
                raise Full(f"{self._max} episodes are open; end one, or wait till one expires")
            self._open[name] = Attending(episode_id=name, bug_id=bug_id, used=self._clock())
        return {"observation": told, "reward": None, "done": False}

    def step(self, name: Any, action: Any, timeout_s: float | None = None) -> dict[str, Any]:
        """Act. Raises `NotFound`, `Over`, `InfrastructureError`."""
        kind, value = read_action(action)
        found = self._find(name)
        with found.lock:
            if found.verdict is not None:
                raise Over(f"episode_id: {name} is over; reset opens another")
            if kind == "command" and found.num_steps >= self._max_steps:
                raise Over(f"episode_id: {name} has had its {self._max_steps} commands; submit it")
            try:
                observation = self._act(found, kind, value, timeout_s)
            finally:
                found.used = self._clock()
            found.num_steps += 1
        verdict = found.verdict
        return {
            "observation": {"episode_id": found.episode_id, **observation},
            "reward": None if verdict is None else verdict.reward,
            "done": verdict is not None,
        }

    def state(self, name: Any) -> dict[str, Any]:
        """What has become of an episode."""
        found = self._find(name)
        verdict = found.verdict
        return {
            "episode_id": found.episode_id,
            "step_count": found.num_steps,
            "instance_id": found.bug_id,
            "done": verdict is not None,
            "reward": None if verdict is None else verdict.reward,
            "reason": "" if verdict is None else verdict.reason,
        }

    def end(self, name: str) -> None:
        """Forget an episode, whether it is over or not."""
        with self._lock:
            found = self._open.pop(name, None)
        if found is not None:
            found.ended = True
            found.close()

    def expire(self) -> None:
        """End what nobody used for long; what is being stepped is in use."""
        with self._lock:
            late = self._clock() - self._idle_s
            old = [n for n, a in self._open.items() if a.used < late and not a.lock.locked()]
        for name in old:
            self.end(name)

    def close(self) -> None:
        """End them all; no more are opened."""
        self._max = 0
        for name in list(self._open):
            self.end(name)

    def _find(self, name: Any) -> Attending:
        self.expire()
        if not isinstance(name, str) or not name:
            raise UserError("episode_id: is missing; take that of reset's observation")
        found = self._open.get(name)
        if found is None:
            raise NotFound(f"episode_id: {name!r} is not open: it expired or never was")
        return found

    def _act(
        self, found: Attending, kind: str, value: str, timeout_s: float | None
    ) -> dict[str, Any]:
        if kind == "command":
            return self._run(found, value, timeout_s)
        if kind == "answer":
            found.verdict = self.exam.judge_answer(found.bug_id, value)
        else:
            patch = value if kind == "patch" else self._tree_of(found)
            found.verdict = self.exam.judge_patch(found.bug_id, patch)
        found.close()
        return {"resolved": found.verdict.resolved, "reason": found.verdict.reason}

    def _run(self, found: Attending, command: str, timeout_s: float | None) -> dict[str, Any]:
        limits = self.exam.scaffold.agent
        session = self._session(found)
        with _spent(found):
            done = session.run(command, min(timeout_s or limits.command_s, limits.command_s))
        output = (done.head + done.tail)[-limits.max_output :]
        return {
            "output": output.decode("utf-8", "replace"),
            "exit_code": done.exit_code,
            "timed_out": done.timed_out,
        }

    def _tree_of(self, found: Attending) -> str:
        session = self._session(found)
        assert found.attempt is not None
        with _spent(found), contextlib.suppress(PatchError):
            return found.attempt.fix_patch(session)
        return ""

    def _session(self, found: Attending) -> Session:
        if found.session is None:
            found.attempt = self.exam.attempt(found.bug_id)
            found.session = found.attempt.open()
            if found.ended:  # meanwhile: nobody else would end it
                found.close()
                raise NotFound(f"episode_id: {found.episode_id} was ended")
        return found.session


@contextlib.contextmanager
def _spent(found: Attending) -> Any:
    """A sandbox that used up its memory or disk is gone with its tree: not a fault of ours."""
    try:
        yield
    except SandboxSpent as spent:
        found.verdict = Judgement(resolved=False, reason="sandbox_spent")
        found.close()
        raise Over(f"episode_id: {found.episode_id}: {spent}") from None
    except InfrastructureError:
        found.close()
        raise


def read_action(action: Any) -> tuple[str, str]:
    """(kind, its text). Raises `UserError`."""
    if not isinstance(action, dict):
        raise UserError(f"action: {action!r} must be an object with one of {', '.join(ACTIONS)}")
    kinds = [kind for kind in ACTIONS if kind in action]
    odd = [key for key in action if key not in (*ACTIONS, "metadata")]
    if len(kinds) != 1 or odd:
        raise UserError(
            f"action: must have exactly one of {', '.join(ACTIONS)}; has {list(action)}"
        )
    value = action[kinds[0]]
    if kinds[0] == "submit":
        if value is not True:
            raise UserError("action.submit: must be true")
        return "submit", ""
    if not isinstance(value, str):
        raise UserError(f"action.{kinds[0]}: must be text")
    return kinds[0], value
