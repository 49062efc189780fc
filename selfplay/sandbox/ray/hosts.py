"""Which nodes have a host, how many sandboxes run on each, and who takes the place of a lost one.

A node gets one actor that holds all of its slots: the resource `sandbox_slots` where any node names
it, else a slot for each of its CPUs. Ray restarts nothing by itself: what is lost is forgotten, and
a watching thread gives every node that is there an actor, new nodes too.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError, UserError
from selfplay.sandbox.ray.host import HostFacts, SandboxHost, code_digest

log = logging.getLogger(__name__)
SLOTS = "sandbox_slots"
LOOK_S = 1.0
START_S = 180.0
MAX_STARTS = 3
"""Of a node's host that does not come up; the node is left alone then."""


class HostLost(Exception):
    """An actor is gone, or does not answer: nothing is known of what it was asked."""


@dataclass(eq=False, kw_only=True)
class Host:
    """The actor of one node. `used`: jobs that run there; `sessions`: those that are open."""

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


class Hosts:
    """The hosts of a cluster. Thread-safe."""

    def __init__(self, options: SandboxConfig) -> None:
        """Raises `UserError` where no node can hold sandboxes, or they are not alike."""
        self._options = options
        self._changed = threading.Condition()
        self._hosts: dict[str, Host] = {}
        self._failed: dict[str, int] = {}
        self._closed = threading.Event()
        wanted = self._first_nodes()
        starting = {node: self._begin(node, slots) for node, slots in wanted.items()}
        problems = [self._finish(node, begun) for node, begun in starting.items()]
        if not self._hosts:
            raise UserError(f"cluster=ray: no node can run sandboxes. {'; '.join(problems)}")
        self._watcher = threading.Thread(target=self._watch, name="ray-hosts", daemon=True)
        self._watcher.start()

    @property
    def all(self) -> list[Host]:
        """Those that are there now."""
        with self._changed:
            return list(self._hosts.values())

    @property
    def num_slots(self) -> int:
        """Sandboxes that may run at once."""
        return sum(host.num_slots for host in self.all)

    @contextmanager
    def slot(self) -> Iterator[Host]:
        """The least busy host, for one job; waits for a free slot. Raises `SandboxError` where no
        host has been there for `wait_s`."""
        with self._taken("used") as host:
            yield host

    @contextmanager
    def session(self) -> Iterator[Host]:
        """The same for a session, which holds no slot: it is idle most of the time."""
        with self._taken("sessions") as host:
            yield host

    def lose(self, host: Host, why: str) -> None:
        """Forget a host; its node gets another one if it is still there."""
        with self._changed:
            if self._hosts.get(host.node) is not host:
                return
            del self._hosts[host.node]
        log.warning("node %s is lost (%s); its jobs go elsewhere", host.node[:12], why)
        with contextlib.suppress(Exception):
            ray.kill(host.actor)

    def close(self) -> None:
        """End all actors. Idempotent."""
        self._closed.set()
        with self._changed:
            hosts = list(self._hosts.values())
            self._hosts.clear()
            self._changed.notify_all()
        asked = [host.actor.close.remote() for host in hosts]
        if asked:
            with contextlib.suppress(RayError):
                ray.wait(asked, num_returns=len(asked), timeout=30.0)
        for host in hosts:
            with contextlib.suppress(Exception):
                ray.kill(host.actor)

    def _first_nodes(self) -> dict[str, int]:
        """Slots by node; waits until one is there, since a cluster comes up node by node."""
        wait_s = self._options.cluster.wait_s
        until = time.monotonic() + wait_s
        if not slots_of(_nodes()):
            log.warning("waiting for the first node of the cluster that has sandboxes")
        while not (wanted := slots_of(_nodes())):
            if time.monotonic() > until:
                raise UserError(
                    f"cluster=ray: for {wait_s:.0f} s no node had CPUs or the resource {SLOTS}; "
                    "start one with scripts/launch_ray.sh node HEAD:PORT"
                )
            self._closed.wait(LOOK_S)
        return wanted

    @contextmanager
    def _taken(self, what: str) -> Iterator[Host]:
        host = self._take(what)
        try:
            yield host
        finally:
            with self._changed:
                setattr(host, what, getattr(host, what) - 1)
                self._changed.notify()

    def _take(self, what: str) -> Host:
        alone_since: float | None = None
        with self._changed:
            while True:
                if self._closed.is_set():
                    raise SandboxError("the sandboxes are closed")
                free = [
                    host
                    for host in self._hosts.values()
                    if what == "sessions" or host.used < host.num_slots
                ]
                if free:
                    host = min(free, key=lambda h: (h.used + h.sessions) / h.num_slots)
                    setattr(host, what, getattr(host, what) + 1)
                    return host
                now = time.monotonic()
                alone_since = (alone_since or now) if not self._hosts else None
                wait_s = self._options.cluster.wait_s
                if alone_since is not None and now - alone_since > wait_s:
                    raise SandboxError(f"no node of the cluster had sandboxes for {wait_s:.0f} s")
                self._changed.wait(LOOK_S)

    def _watch(self) -> None:
        """Hosts for nodes that have none, until the end."""
        while not self._closed.wait(LOOK_S):
            try:
                wanted = slots_of(_nodes())
            except Exception as error:  # the cluster's head is busy, or gone: jobs will say so
                log.info("the nodes cannot be listed: %s", error)
                continue
            for host in self.all:
                if host.node not in wanted:
                    self.lose(host, "the node is gone")
            for node, slots in wanted.items():
                if node not in self._hosts and self._failed.get(node, 0) < MAX_STARTS:
                    problem = self._finish(node, self._begin(node, slots))
                    if problem and not self._closed.is_set():
                        log.warning("no sandboxes on %s", problem)

    def _begin(self, node: str, num_slots: int) -> tuple[Any, int, Any]:
        """An actor that is coming up, its slots, and the reference to what it says of itself."""
        named = SLOTS in _resources(node)
        share = {"num_cpus": 0, "resources": {SLOTS: num_slots}} if named else None
        remote: Any = ray.remote(SandboxHost)
        actor = remote.options(
            **(share or {"num_cpus": num_slots}),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=10_000,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        ).remote(self._options, num_slots)
        return actor, num_slots, actor.describe.remote()

    def _finish(self, node: str, begun: tuple[Any, int, Any]) -> str:
        """Wait for an actor and take it in; why not, else ""."""
        actor, num_slots, reference = begun
        problem = ""
        try:
            facts = answer_of(reference, START_S)
            problem = self._unlike(facts)
        except (HostLost, SelfplayError) as error:
            problem = str(error)
        if problem:
            self._failed[node] = self._failed.get(node, 0) + 1
            with contextlib.suppress(Exception):
                ray.kill(actor)
            return f"node {node[:12]}: {problem}"
        with self._changed:
            host = Host(node=node, actor=actor, num_slots=num_slots, facts=facts)
            self._hosts[node] = host
            self._failed.pop(node, None)
            self._changed.notify_all()
        return ""

    def _unlike(self, facts: HostFacts) -> str:
        """How a node differs from what it must be, "" where it does not."""
        if facts.code != code_digest():
            return "another version of selfplay is installed there: install the same on every node"
        others = {host.facts.sandbox for host in self.all} - {facts.sandbox}
        if others:
            return (
                f"its sandbox is {facts.sandbox}, that of others {', '.join(others)}: name one, "
                "as in sandbox=bubblewrap"
            )
        return ""


def slots_of(nodes: list[dict[str, Any]]) -> dict[str, int]:
    """{node: sandboxes that may run there} of what `ray.nodes()` lists."""
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    named = any(SLOTS in resources for resources in alive.values())
    key = SLOTS if named else "CPU"
    slots = {node: int(resources.get(key, 0)) for node, resources in alive.items()}
    return {node: number for node, number in slots.items() if number > 0}


def _resources(node: str) -> dict[str, float]:
    found: dict[str, float] = next((n["Resources"] for n in _nodes() if n["NodeID"] == node), {})
    return found


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found
