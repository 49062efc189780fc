"""How this process joins a cluster: at an address that answers, or with a reason."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path

import ray

from selfplay.errors import UserError

log = logging.getLogger(__name__)
ANSWER_S = 10.0
VARIABLE = "RAY_ADDRESS"
START = (
    "start one with scripts/launch_ray.sh, or `ray start --head` and `ray start --address=...`, "
    "and name it in sandbox.cluster.address"
)


def connect(address: str | None) -> bool:
    """Join a cluster that runs already; False where this process has joined one before.

    `address`: HOST:PORT of its head; None: what RAY_ADDRESS says, else the cluster of this machine.
    Raises `UserError` with the remedy.
    """
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    named, said_by = _find(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if named:  # one that is not there: Ray itself would try for minutes
            _probe(named, said_by)
        # Code comes from the package that is installed on every node: nothing is uploaded.
        ray.init(address=named or "auto", log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(_why_not(named, str(error))) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return True


def _find(address: str | None) -> tuple[str | None, str]:
    """(HOST:PORT or None, who says so): None where Ray is to look for a cluster of this machine."""
    said_by = "sandbox.cluster.address"
    if address is None and (address := os.environ.get(VARIABLE, "").strip()):
        said_by = f"the variable {VARIABLE}"
        log.warning("cluster=ray: %s=%s says which cluster is joined", VARIABLE, address)
    if address in (None, "", "auto"):
        temporary = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
        file = Path(temporary, "ray", "ray_current_cluster")
        try:
            address = file.read_text().strip()
        except OSError:
            return None, ""
        if _a_head_runs_here():  # Ray prefers it to what the file says
            return None, ""
        said_by = f"the file {file}, which outlives a Ray that was killed: remove it,"
    return address, said_by


def _probe(address: str, said_by: str) -> None:
    """Raises `UserError` where `address` is no HOST:PORT, or nothing listens there."""
    host, colon, port = address.rpartition(":")
    if "://" in address or not (colon and port.isdecimal()):
        raise UserError(
            f"cluster=ray: {address!r} ({said_by}) is not the HOST:PORT of a cluster's head, such "
            f"as 10.0.0.1:6379: say that in sandbox.cluster.address, or unset {VARIABLE}. Ray's "
            "client (ray://) and dashboard (http://) do not do: a run is on a node of its cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise UserError(
            f"cluster=ray: no cluster at {address} ({error}), which {said_by} names; {START}"
        ) from error


def _why_not(address: str | None, reason: str) -> str:
    """The message where a head was there, and yet was not joined."""
    where = address or "this machine"
    lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("Version mismatch"):
        return (
            f"cluster=ray: the cluster at {where} was started with other versions. "
            f"{' '.join(lines)}. Install the same Python and Ray on every machine"
        )
    return f"cluster=ray: no cluster at {where} ({lines[0] if lines else 'no reason'}); {START}"


def _a_head_runs_here() -> bool:
    """Whether this machine has a head of Ray, of whatever user."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes().partition(b"\0")[0].endswith(b"/gcs_server"):
                return True
        except OSError:
            continue
    return False
