"""How the host of one node comes up: an actor that is asked what it is, checked, and tried again.

An actor that Ray has no room for stays silent for ever, like one that is slow to start. The first
is waited for, and who holds its slots is said; the second is ended and begun again.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.ray.holders import name_of, who_holds
from selfplay.sandbox.ray.host import HostFacts, SandboxHost, code_digest
from selfplay.sandbox.select import check

log = logging.getLogger(__name__)
SLOTS = "sandbox_slots"
LOOK_S = 1.0
ASK_S = 5.0
"""Between two questions of who holds the slots."""
SLOW_S = 30.0
"""After which a start is called slow, once."""
START_S = 180.0
"""After which a start is given up and begun again."""
GRACE_S = 120.0
"""What a host gets beyond a job's own time-out before it counts as lost."""


class HostLost(Exception):
    """An actor is gone, or does not answer: nothing is known of what it was asked."""


class StartFailed(Exception):
    """A host did not come up. `final`: it said so itself, and would say so again."""

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


@dataclass(eq=False, kw_only=True)
class Host:
    """The actor of one node; `name` of its sandbox. `used`: jobs that run there; `sessions`: those
    that are open."""

    name: str
    node: str
    actor: Any
    num_slots: int
    facts: HostFacts
    used: int = 0
    sessions: int = 0

    def ask(self, method: str, *words: Any, timeout_s: float) -> Any:
        """What a method of `SandboxHost` answers. Raises the error that it found, `SandboxError`
        where its own code failed, and `HostLost`."""
        return answer_of(getattr(self.actor, method).remote(*words), timeout_s)

    def run(self, job: Job) -> RunResult:
        """One job. Raises `HostLost`, or what the sandbox there raised."""
        result = self.ask("run", job, timeout_s=job.quota.timeout_s + GRACE_S)
        assert isinstance(result, RunResult)
        return result

    def close(self) -> None:
        """Does nothing: a host is closed with all others."""


def answer_of(reference: Any, timeout_s: float) -> Any:
    """See `Host.ask`."""
    try:
        answer = ray.get(reference, timeout=timeout_s)
    except RayTaskError as error:
        raise SandboxError(f"a host failed: {error}") from error
    except GetTimeoutError as error:
        raise HostLost(f"no answer in {timeout_s:.0f} s") from error
    except RayError as error:
        raise HostLost(_reason(str(error))) from error
    if isinstance(answer, SelfplayError):
        raise answer
    return answer


def _reason(text: str) -> str:
    """One line of what Ray says: with a traceback its end, where the host's own words are."""
    lines = text.strip().splitlines()
    return lines[-1 if any(line.lstrip().startswith("File ") for line in lines) else 0].strip()


class Start:
    """One try to bring up the host of a node. `held`: who has its slots, in words, "" where nobody
    keeps it waiting; `held_since`: seconds of the monotonic clock."""

    def __init__(
        self,
        options: SandboxConfig,
        *,
        run: str,
        node: str,
        num_slots: int,
        resource: str,
        closed: threading.Event,
    ) -> None:
        self._run, self._node, self._num_slots = run, node, num_slots
        self._closed = closed
        self.held, self.held_since = "", 0.0
        share = {"num_cpus": num_slots}
        if resource == SLOTS:
            share = {"num_cpus": 0, "resources": {SLOTS: num_slots}}  # type: ignore[dict-item]
        remote: Any = ray.remote(SandboxHost)
        self._actor = remote.options(
            **share,
            name=name_of(run, node, num_slots),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=10_000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(options, num_slots)

    def finish(self, unlike: Callable[[HostFacts], str]) -> Host:
        """The host, once it has run a command on a tree that this machine has written. Raises
        `StartFailed`; `unlike`: how a node differs from what it must be, "" where it does not."""
        try:
            facts = self._facts()
            if problem := unlike(facts):
                raise StartFailed(problem, final=True)
            host = Host(
                name=facts.sandbox, node=self._node, actor=self._actor,
                num_slots=self._num_slots, facts=facts,
            )  # fmt: skip
            check(host)
        except StartFailed:
            self.kill()
            raise
        except (HostLost, SelfplayError) as error:
            self.kill()
            final = isinstance(error, SelfplayError) or _failed_by_itself(error)
            raise StartFailed(str(error), final=final) from error
        return host

    def kill(self) -> None:
        """End the actor, whether or not it is there."""
        with contextlib.suppress(Exception):
            ray.kill(self._actor)

    def _facts(self) -> HostFacts:
        """What the actor says of itself, as soon as it is there."""
        reference = self._actor.describe.remote()
        began = time.monotonic()
        ask_at, slow_at = began + LOOK_S, began + SLOW_S
        while not self._closed.is_set():
            if ray.wait([reference], timeout=LOOK_S)[0]:
                facts = answer_of(reference, LOOK_S)
                assert isinstance(facts, HostFacts)
                return facts
            now = time.monotonic()
            if now >= ask_at:
                ask_at = now + ASK_S
                self._ask_who_holds(now)
            if self.held:
                began, slow_at = now, now + SLOW_S  # waiting is no start
            elif now - began > START_S:
                raise StartFailed(f"did not start in {START_S:.0f} s", final=False)
            elif now > slow_at:
                slow_at = began + START_S + 1.0
                log.warning(
                    "node %s is slow: its sandboxes are not up after %.0f s; they are begun again "
                    "after %.0f s", self._node[:12], now - began, START_S,
                )  # fmt: skip
        raise StartFailed("closed before it was up", final=True)

    def _ask_who_holds(self, now: float) -> None:
        held = who_holds(self._run, {self._node: self._num_slots})
        if held and not self.held:
            self.held_since = now
        self.held = held


def _failed_by_itself(error: BaseException) -> bool:
    """Whether an actor ended because its own beginning raised, not because it was ended."""
    cause = error.__cause__
    return isinstance(cause, RayActorError) and cause.actor_init_failed


def unlike(facts: HostFacts, others: set[str]) -> str:
    """How a node differs from this machine, and from nodes with the sandboxes `others`."""
    if facts.code != code_digest():
        return "another version of selfplay is installed there: install the same on every node"
    if different := others - {facts.sandbox}:
        return (
            f"its sandbox is {facts.sandbox}, that of others {', '.join(different)}: name one, "
            "as in sandbox=bubblewrap"
        )
    return ""
