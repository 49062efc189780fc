"""Which cluster a run joins, and what it says where it joins none."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from selfplay.errors import UserError
from tests.sandbox.ray_cluster import ROOT, SMALL

pytest.importorskip("ray")
from selfplay.sandbox.ray import joining
from selfplay.sandbox.ray.joining import connect

OTHER_VERSION = f"""
import sys, ray
ray.__version__ = "2.12.0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{
    "num_cpus": 0, "include_dashboard": False, "object_store_memory": {SMALL}}})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@contextmanager
def quickly(limit_s: float = 15.0) -> Iterator[None]:
    """Ray itself tries for minutes."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < limit_s


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_file_of_a_cluster_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ray-project/ray#45771, #27021: the file stays, and Ray tried its address for minutes, with
    nothing said of where it had it from."""
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text(f"127.0.0.1:{closed_port()}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(joining, "_a_head_runs_here", lambda: False)  # whoever tests beside us
    with quickly(), pytest.raises(UserError, match=rf"the file {file}.*killed: remove it") as told:
        connect(None)
    assert "127.0.0.1" in str(told.value) and "launch_ray.sh" in str(told.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "head"])
def test_an_address_that_is_not_a_head(
    address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """ray-project/ray#35010, #53226: RAY_ADDRESS is set for `ray job submit` or Ray's client,
    and every program of that shell takes it."""
    with quickly(), pytest.raises(UserError, match=r"sandbox\.cluster\.address\) is not the HOST"):
        connect(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with quickly(), pytest.raises(UserError, match="unset RAY_ADDRESS"):
        connect(None)
    assert f"RAY_ADDRESS={address} says which cluster is joined" in caplog.text


def test_a_variable_that_names_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{closed_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with quickly(), pytest.raises(UserError, match=f"{address}.*which the variable RAY_ADDRESS"):
        connect(None)
    with quickly(), pytest.raises(UserError, match=r"which sandbox\.cluster\.address names"):
        connect(address)


@pytest.mark.slow
def test_a_cluster_of_another_version() -> None:
    """Unakar/Logic-RL#30, microsoft/ray-on-aml#32: which versions differ is the whole matter."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_VERSION], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, cwd=ROOT,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        address = other.stdout.readline().strip()
        with pytest.raises(UserError, match=r"Ray: 2\.12\.0.*Install the same") as told:
            connect(address)
        assert f"Python: {sys.version.split()[0]}" in str(told.value)
        assert "start one with" not in str(told.value)
        other.communicate("", timeout=200)
