"""Which nodes have a host, how many sandboxes run on each, and who takes the place of a lost one.

A node gets one actor that holds all of its slots: the resource `sandbox_slots` where any node names
it, else a slot for each of its CPUs. Ray restarts nothing by itself: what is lost is forgotten, and
a watching thread gives every node that is there an actor, new nodes too. Each comes up in a thread
of its own (`start.py`); work begins with the first.
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
from ray.exceptions import RayError

from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.ray.holders import new_run, what_else_holds, who_holds
from selfplay.sandbox.ray.host import HostFacts
from selfplay.sandbox.ray.start import SLOTS, Host, Start, StartFailed, unlike

log = logging.getLogger(__name__)
LOOK_S = 1.0
MAX_STARTS = 3
"""Of a node's host that does not come up; the node is left alone then."""
CLOSE_S = 30.0


@dataclass(kw_only=True)
class Node:
    """How a node without a host stands: `thread` brings one up, `start` is the try at hand."""

    num_slots: int
    num_failed: int = 0
    problem: str = ""
    final: bool = False
    thread: threading.Thread | None = None
    start: Start | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a host of it is coming up."""
        return self.thread is not None and self.thread.is_alive()


class Hosts:
    """The hosts of a cluster. Thread-safe."""

    def __init__(self, options: SandboxConfig) -> None:
        """Waits for the first host. Raises `UserError` where no node can hold sandboxes, or what
        else holds their slots does so for `wait_s`."""
        self._options = options
        self._changed = threading.Condition()
        self._hosts: dict[str, Host] = {}
        self._nodes: dict[str, Node] = {}
        self._closed = threading.Event()
        self._run = new_run()
        self._told_held = ""
        wanted = self._first_nodes()
        self.num_expected = sum(wanted.values())
        if else_held := what_else_holds(wanted, _resource(*wanted)):
            log.warning("waiting for slots: %s", else_held)
        self._else_held = else_held
        self._watcher = threading.Thread(target=self._watch, name="ray-hosts", daemon=True)
        self._watcher.start()
        try:
            self.sandbox = self._first_host().facts.sandbox
        except BaseException:
            self.close()
            raise

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
        """End all actors and the threads that look after them. Idempotent."""
        self._closed.set()
        with self._changed:
            hosts = list(self._hosts.values())
            self._hosts.clear()
            self._changed.notify_all()
        asked = [host.actor.close.remote() for host in hosts]
        if asked:
            with contextlib.suppress(RayError):
                ray.wait(asked, num_returns=len(asked), timeout=CLOSE_S)
        for host in hosts:
            with contextlib.suppress(Exception):
                ray.kill(host.actor)
        self._watcher.join(CLOSE_S)
        for node in self._nodes.values():
            if node.start is not None:
                node.start.kill()  # what it asks its host ends with the host
        for node in self._nodes.values():
            if node.thread is not None:
                node.thread.join(CLOSE_S)

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

    def _first_host(self) -> Host:
        """Waits for it. Raises `UserError`, see `__init__`."""
        wait_s = self._options.cluster.wait_s
        while True:
            with self._changed:
                if self._hosts:
                    return next(iter(self._hosts.values()))
                nodes = dict(self._nodes)
                self._changed.wait(LOOK_S)
            left = [n for n in nodes.values() if not n.final and n.num_failed < MAX_STARTS]
            if nodes and not left:
                problems = "; ".join(f"node {k[:12]}: {n.problem}" for k, n in nodes.items())
                if self._else_held:
                    problems += f". At the beginning {self._else_held}"
                raise UserError(f"cluster=ray: no node can run sandboxes. {problems}")
            held = [n.start for n in left if n.start is not None and n.start.held]
            since = max((start.held_since for start in held), default=0.0)
            if held and len(held) == len(left) and time.monotonic() - since > wait_s:
                raise UserError(f"cluster=ray: waited {wait_s:.0f} s for slots: {self._held()}")

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
        while not self._closed.is_set():
            try:
                wanted = slots_of(_nodes())
                self._look(wanted)
            except Exception as error:  # the cluster's head is busy, or gone: jobs will say so
                log.info("the nodes cannot be listed: %s", error)
            self._closed.wait(LOOK_S)

    def _look(self, wanted: dict[str, int]) -> None:
        """Forget what is gone, begin what is missing, say who holds what is waited for."""
        for host in self.all:
            if host.node not in wanted:
                self.lose(host, "the node is gone")
        for name, slots in wanted.items():
            with self._changed:
                node = self._nodes.setdefault(name, Node(num_slots=slots))
                idle = name not in self._hosts and not node.is_busy
            if idle and node.num_failed < MAX_STARTS and not self._closed.is_set():
                node.num_slots = slots
                node.thread = threading.Thread(
                    target=self._bring_up, args=(name, node), name="ray-host", daemon=True
                )
                node.thread.start()
        if (held := self._held()) and not self._told_held:
            log.warning("waiting for slots: %s", held)
        self._told_held = held

    def _bring_up(self, name: str, node: Node) -> None:
        """One try to give a node a host."""
        try:
            node.start = Start(
                self._options, run=self._run, node=name, num_slots=node.num_slots,
                resource=_resource(name), closed=self._closed,
            )  # fmt: skip
            host = node.start.finish(self._unlike)
        except Exception as error:  # Ray itself fails in many ways while a node comes or goes
            with self._changed:
                node.num_failed += 1
                node.problem, node.start = str(error), None
                node.final = isinstance(error, StartFailed) and error.final
                self._changed.notify_all()
            if not self._closed.is_set():
                again = "it is tried again" if node.num_failed < MAX_STARTS else "it is left alone"
                log.warning("no sandboxes on node %s: %s; %s", name[:12], error, again)
            return
        with self._changed:
            node.start, node.num_failed = None, 0
            if not self._closed.is_set():
                self._hosts[name] = host
                self._changed.notify_all()
                return
        with contextlib.suppress(Exception):
            ray.kill(host.actor)

    def _unlike(self, facts: HostFacts) -> str:
        return unlike(facts, {host.facts.sandbox for host in self.all})

    def _held(self) -> str:
        """Who holds the slots that this run waits for, in words; "" where nobody does."""
        with self._changed:
            waiting = {
                name: node.num_slots
                for name, node in self._nodes.items()
                if node.start is not None and node.start.held
            }
        return who_holds(self._run, waiting) if waiting else ""


def slots_of(nodes: list[dict[str, Any]]) -> dict[str, int]:
    """{node: sandboxes that may run there} of what `ray.nodes()` lists."""
    alive = {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}
    named = any(SLOTS in resources for resources in alive.values())
    key = SLOTS if named else "CPU"
    slots = {node: int(resources.get(key, 0)) for node, resources in alive.items()}
    return {node: number for node, number in slots.items() if number > 0}


def _resource(*names: str) -> str:
    """What the slots of these nodes are called by Ray."""
    named = any(SLOTS in n["Resources"] for n in _nodes() if n["NodeID"] in names)
    return SLOTS if named else "CPU"


def _nodes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return found
