"""Whose the slots of a cluster are: each host's actor has a name that says which run it belongs to.

A run takes every slot of a node. Ray leaves what asks for more than is free waiting without a word;
these names are how one run can tell another what it waits for.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import json
import os
import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import ray
from ray.util import list_named_actors

_numbers = itertools.count()
REMEDY = (
    "two runs cannot share the slots of one cluster: wait for its end, end it there, or start a "
    "cluster for this run (scripts/launch_ray.sh with another PORT) and name it in "
    "sandbox.cluster.address"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The run that a host belongs to; `since` in seconds of the epoch."""

    run: str
    user: str
    machine: str
    pid: int
    job: str
    node: str
    slots: int
    since: float

    def __str__(self) -> str:
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return (
            f"process {self.pid} of {self.user} on {self.machine} (Ray's job {self.job}, since "
            f"{began})"
        )


def new_run() -> str:
    """A token that tells the hosts of one `Hosts` from all others."""
    return uuid.uuid4().hex


def name_of(run: str, node: str, slots: int) -> str:
    """The name of a host's actor; no two are the same."""
    user = "an unknown user"
    with contextlib.suppress(KeyError, OSError):  # no such user in this container
        user = getpass.getuser()
    holder = Holder(
        run=run, user=user, machine=platform.node(), pid=os.getpid(), node=node, slots=slots,
        job=ray.get_runtime_context().get_job_id(), since=time.time(),
    )  # fmt: skip
    return json.dumps({"selfplay": next(_numbers), **asdict(holder)})


def holders() -> dict[str, tuple[Holder, str]]:
    """{node: (the run that has its slots, the namespace of it)}: of several that want them the
    first has them."""
    found: list[tuple[Holder, str]] = []
    for actor in list_named_actors(all_namespaces=True):
        named: dict[str, str] = dict(actor)
        with contextlib.suppress(ValueError, TypeError, KeyError):  # not one of ours
            document = json.loads(named["name"])
            document.pop("selfplay")
            found.append((Holder(**document), named["namespace"]))
    first: dict[str, tuple[Holder, str]] = {}
    for pair in sorted(found, key=lambda pair: pair[0].since):
        first.setdefault(pair[0].node, pair)
    return first


def who_holds(run: str, slots: Mapping[str, int]) -> str:
    """Which other runs keep the slots of nodes from `run`, in words with the remedy; "" where none
    does. `slots`: {node: slots} of nodes on which `run` has none."""
    first = holders()
    others = {n: first[n] for n in slots if n in first and first[n][0].run != run}
    if not others:
        return ""
    owners = {h.run: f"{h} in the namespace {namespace}" for h, namespace in others.values()}
    return (
        f"{sum(slots[node] for node in others)} of {sum(slots.values())} sandbox slots are "
        f"taken, by {'; '.join(owners.values())}: {REMEDY}"
    )


def what_else_holds(slots: Mapping[str, int], resource: str) -> str:
    """The same of what is no run of this package, told by how much is free; asked before this run
    has begun a host, whose share is no longer free."""
    free = ray.available_resources().get(resource, 0.0)  # type: ignore[no-untyped-call]
    total = ray.cluster_resources().get(resource, 0.0)  # type: ignore[no-untyped-call]
    named = sum(holder.slots for holder, _ in holders().values())
    taken = total - free - named
    if taken < 1.0 or free >= min(slots.values()):
        return ""
    return (
        f"{taken:.0f} {resource} of the cluster are taken by something that is no run of selfplay, "
        f"{free:.0f} are free (`ray status` tells more): end it, or name another cluster in "
        "sandbox.cluster.address"
    )
