"""Who computes where: GPUs that are there, split between learner and inference servers.

Plain arithmetic on what `nvidia-smi` lists, without torch: `selfplay doctor`, a dry run and the
start of a run ask the same functions, so that the plan is what happens.

    no GPU                 one learner on the CPU, servers on the CPU
    engine transformers    the learner's process samples too: every GPU is a rank of the learner,
                           the first one samples
    engine vllm, one GPU   learner and server share it, by memory (`SHARED_SERVER`)
    engine vllm, several   a quarter for the learner (at least one, more where its state does not
                           fit), the rest for servers: sampling takes most of a step's time
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfplay.errors import UserError

GIB = 2**30
SHARED_SERVER = 0.4
"""Part of a shared GPU's memory that the server may take; the learner has the rest."""
QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
SLICES = ("nvidia-smi", "-L")
_SLICE = re.compile(
    r"MIG (?P<profile>\S*?(?P<gib>\d+)gb\S*)\s+Device\s+\d+: \(UUID: (?P<id>MIG-[^)]+)\)"
)
FAKE = re.compile(r"fake:(\d{1,3})(?:x(\d{1,4}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. `id`: what CUDA_VISIBLE_DEVICES calls it. `memory`: bytes."""

    id: str
    name: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Positions in `gpus` of the learner's ranks and of each server; empty: on the CPU."""

    gpus: tuple[Gpu, ...]
    learner: tuple[int, ...]
    servers: tuple[tuple[int, ...], ...]
    shared: bool = False

    @property
    def num_ranks(self) -> int:
        """Processes that train together."""
        return max(1, len(self.learner))

    def ids(self, positions: Sequence[int]) -> list[str]:
        """What CUDA_VISIBLE_DEVICES calls these."""
        return [self.gpus[position].id for position in positions]

    def describe(self) -> str:
        """One line for people."""
        if not self.gpus:
            return "no GPU: everything on the CPU"
        parts = [f"learner on {_listed(self.learner)}"]
        if self.servers:
            where = "; ".join(_listed(server) for server in self.servers)
            share = f", {SHARED_SERVER:.0%} of the memory" if self.shared else ""
            parts.append(f"{len(self.servers)} vLLM on {where}{share}")
        elif self.learner:
            parts.append(f"sampling in process on {_listed(self.learner[:1])}")
        return ", ".join(parts)


def find_gpus(devices: str) -> tuple[Gpu, ...]:
    """The GPUs that `devices` names.

    auto: those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves. cpu: none. fake:N or
    fake:NxG: N imagined ones of G GiB (80), for plans. Raises `UserError` for anything else.
    """
    if devices == "cpu":
        return ()
    if devices == "auto":
        return _visible(_listed_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    match = FAKE.fullmatch(devices)
    if match is None:
        raise UserError(f"devices={devices!r}: must be auto, cpu, or for plans fake:8 or fake:8x80")
    memory = int(match[2] or 80)
    return tuple(
        Gpu(id=str(number), name=f"imagined GPU, {memory} GiB", memory=memory * GIB)
        for number in range(int(match[1]))
    )


def place(
    gpus: Sequence[Gpu],
    engine: str,
    *,
    learner: int | None = None,
    servers: int | None = None,
    gpus_per_server: int = 1,
    serves: bool = True,
    fits: Callable[[int], bool] = lambda ranks: True,
) -> Placement:
    """Split the GPUs; `learner` and `servers` override what would be derived.

    `serves`: whether vLLM servers are started here. `fits(ranks)`: whether the learner's memory
    suffices when it is spread over so many GPUs. Raises `UserError` for a split that cannot be.
    """
    num = len(gpus)
    if num == 0:
        return Placement(gpus=(), learner=(), servers=())
    if engine != "vllm" or not serves:
        ranks = num if learner is None else learner
        _check(ranks, 0, num, "")
        return Placement(gpus=tuple(gpus), learner=tuple(range(ranks)), servers=())
    if num == 1 and learner in (None, 1) and servers in (None, 1) and gpus_per_server == 1:
        return Placement(gpus=tuple(gpus), learner=(0,), servers=((0,),), shared=True)
    ranks = learner if learner is not None else _learner_ranks(num, gpus_per_server, fits)
    rest = num - ranks
    count = servers if servers is not None else max(1, rest // gpus_per_server)
    _check(ranks, count * gpus_per_server, num, f" of {gpus_per_server}")
    starts = [ranks + number * gpus_per_server for number in range(count)]
    return Placement(
        gpus=tuple(gpus),
        learner=tuple(range(ranks)),
        servers=tuple(tuple(range(start, start + gpus_per_server)) for start in starts),
    )


def _learner_ranks(num: int, gpus_per_server: int, fits: Callable[[int], bool]) -> int:
    """A quarter of the GPUs, or the least above that which the learner's state fits into while one
    server is left; where none does, the start of the run says so."""
    most = max(1, num - gpus_per_server)
    least = min(most, max(1, num // 4))
    return next((ranks for ranks in range(least, most + 1) if fits(ranks)), most)


def _check(ranks: int, serving: int, num: int, per_server: str) -> None:
    if ranks < 1 or ranks + serving > num:
        raise UserError(
            f"split: {ranks} GPUs for the learner and {serving} for servers{per_server} cannot be "
            f"taken from {num}; change split.learner, split.servers or split.gpus_per_server"
        )


def _listed(positions: Sequence[int]) -> str:
    words = ", ".join(map(str, positions))
    return f"GPU {words}" if len(positions) == 1 else f"GPUs {words}"


def driver_problem() -> str:
    """What nvidia-smi says where it is there and fails, "" otherwise: a driver that was updated
    under a running kernel looks like a machine without GPUs else."""
    done = _ask_driver(QUERY)
    if done is None or done.returncode == 0:
        return ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"nvidia-smi fails: {lines[0] if lines else f'exit code {done.returncode}'}"


def _ask_driver(argv: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """None where there is no nvidia-smi, or it hangs."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _listed_gpus() -> list[tuple[str, str, Gpu]]:
    """(index, uuid, GPU) of each; none where there is no driver."""
    done = _ask_driver(QUERY)
    found = []
    for line in done.stdout.splitlines() if done and done.returncode == 0 else ():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[3].isdigit():
            index, uuid, name, mib = fields
            found.append((index, uuid, Gpu(id=index, name=name, memory=int(mib) * 2**20)))
    return found


def _listed_slices() -> list[tuple[str, str, Gpu]]:
    """As `_listed_gpus`, of the parts that GPUs are divided into (MIG); they have no index."""
    done = _ask_driver(SLICES)
    return [
        ("", m["id"], Gpu(id=m["id"], name=f"MIG {m['profile']}", memory=int(m["gib"]) * GIB))
        for m in _SLICE.finditer(done.stdout if done and done.returncode == 0 else "")
    ]


def _visible(listed: Sequence[tuple[str, str, Gpu]], chosen: str | None) -> tuple[Gpu, ...]:
    """In the order of CUDA_VISIBLE_DEVICES, which ends at the first name that it does not know and
    shows nothing where one stands twice. A part of a UUID becomes the whole: vLLM looks for that.
    """
    if chosen is None:
        return tuple(gpu for _, _, gpu in listed)
    words = [word for word in (word.strip() for word in chosen.split(",")) if word]
    if any(word.startswith("MIG-") for word in words):
        listed = [*listed, *_listed_slices()]
    found: list[Gpu] = []
    for word in words:
        match = [(u, g) for index, u, g in listed if word == index or u.startswith(word)]
        if len(match) != 1:
            break
        ((uuid, gpu),) = match
        found.append(gpu if word == gpu.id else dataclasses.replace(gpu, id=uuid))
    return tuple(found) if len(set(found)) == len(found) else ()
