"""A Ray cluster of several nodes in this machine, for tests and measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SMALL = 78_643_200
"""Bytes of a node's object store: the least that Ray takes."""


def add_node(cluster: Any, **words: Any) -> Any:
    """A node of one CPU; again where it did not start in the 30 seconds that Ray allows it."""
    for number in range(3):
        try:
            return cluster.add_node(num_cpus=1, object_store_memory=SMALL, **words)
        except Exception:
            if number == 2:
                raise
    return None


@contextmanager
def ray_nodes(number: int) -> Iterator[Any]:
    """`ray.cluster_utils.Cluster` with `number` nodes of one CPU; this process joins the first."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)  # nodes have the same package installed
    os.environ.update(RAY_worker_niceness="0")  # at 15 hosts of a busy machine never come up
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        # Ray's own tools wait for a dashboard that is not there.
        add_node(cluster, include_dashboard=False)
        for _ in range(number - 1):
            add_node(cluster)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
