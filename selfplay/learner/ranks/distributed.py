"""The processes that train together: who is who, and how values travel between them.

Started by torchrun, which sets RANK, WORLD_SIZE and the address of a store. Rank 0 runs the whole
loop; the others wait for what it tells them to compute (`team.py`). Two groups:

    control   gloo, patient: orders, samples and counts, as pickled objects of this package
    mesh      nccl where there are GPUs, else gloo: gradients and weights (`sharding.py`)

A rank that fails writes why into the store before it ends. The others then find their connection
closed, read the reason and end too: nothing waits for a rank that is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from selfplay.errors import InfrastructureError, SelfplayError, UserError

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""How long a rank waits for rank 0, which may play for hours between two steps."""
_FAILED = "selfplay/failed"
_SIGNS = ("gloo", "connection closed", "connection reset", "broken pipe", "nccl")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those that train together; `ALONE` without any group."""

    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None
    mesh: DeviceMesh | None = None
    store: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that runs the loop."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Whether weights are sharded: in any group, also in one of size 1."""
        return self.mesh is not None

    def broadcast(self, value: Any = None) -> Any:
        """Rank 0's `value` on every rank."""
        box = [value]
        if self.control is not None:
            dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def scatter(self, parts: Sequence[T]) -> T:
        """`parts[rank]` of what rank 0 gives; the others' argument is not looked at."""
        if self.control is None:
            return parts[0]
        box: list[Any] = [None]
        given = list(parts) if self.is_first else None
        dist.scatter_object_list(box, given, src=0, group=self.control)
        return box[0]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order, on every rank."""
        if self.control is None:
            return [value]
        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value, group=self.control)
        return box

    def note_failure(self, error: BaseException) -> None:
        """Leave the reason of this rank's end for the others; the first to fail is kept."""
        if self.store is not None:
            reason = f"rank {self.rank}: {type(error).__name__}: {error}".splitlines()[0]
            with contextlib.suppress(RuntimeError):
                self.store.compare_set(_FAILED, "", reason[:500])

    def failure(self) -> str:
        """What another rank left behind; it was killed, or its machine, when that is nothing."""
        with contextlib.suppress(RuntimeError):
            if self.store is not None and self.store.check([_FAILED]):
                return str(self.store.get(_FAILED), "utf-8", "replace")
        return "it was killed or its machine is gone"


ALONE = World()


@contextlib.contextmanager
def joined_world() -> Iterator[World]:
    """Join the other processes that torchrun started; leave them at the end.

    Errors of the connection become `InfrastructureError` with the reason that the failed rank
    gave; any other error is told to the others on its way out.
    """
    world = _join()
    try:
        yield world
    except BaseException as error:
        if is_lost_connection(error):
            raise InfrastructureError(
                f"rank {world.rank} of {world.size} ends because another rank did "
                f"({world.failure()}); start the same command again, it resumes"
            ) from error
        world.note_failure(error)
        raise
    dist.destroy_process_group()


def is_lost_connection(error: BaseException) -> bool:
    """Whether a collective failed because a peer is gone (gloo raises bare RuntimeErrors)."""
    if isinstance(error, dist.DistError):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, SelfplayError):
        return False
    return any(sign in str(error).lower() for sign in _SIGNS)


def _join() -> World:
    cuda = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise UserError(
            f"rank {os.environ['RANK']}: no GPU {local} on this machine, which has "
            f"{torch.cuda.device_count()}; start at most one process for each"
        )
    if cuda:
        torch.cuda.set_device(local)
    try:
        store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=size
        )
    except (ValueError, dist.DistError) as error:
        raise UserError(
            f"the processes cannot find each other ({error}); start them with "
            "`torchrun --nproc-per-node N -m selfplay train ...`"
        ) from error
    control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    mesh = init_device_mesh("cuda" if cuda else "cpu", (size,))
    return World(rank=rank, size=size, control=control, mesh=mesh, store=store)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor: its piece, or all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor on every rank; all ranks must call it for a sharded one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
