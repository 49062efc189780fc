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


@contextmanager
def ray_nodes(number: int) -> Iterator[Any]:
    """`ray.cluster_utils.Cluster` with `number` nodes of one CPU; this process joins the first."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = str(ROOT)  # nodes have the same package installed
    import ray
    from ray.cluster_utils import Cluster

    # Ray's own tools wait for a dashboard that is not there.
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "object_store_memory": SMALL, "include_dashboard": False,
        },
    )  # fmt: skip
    try:
        for _ in range(number - 1):
            cluster.add_node(num_cpus=1, object_store_memory=SMALL)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
