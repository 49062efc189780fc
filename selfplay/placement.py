"""Who computes where: cores and GPUs that are there, these split between learner and servers.

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
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import UserError

GIB = 2**30
SHARED_SERVER = 0.4
"""Part of a shared GPU's memory that the server may take; the learner has the rest."""
QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.total,mig.mode.current",
    "--format=csv,noheader,nounits",
)
SLICES = ("nvidia-smi", "-L")
ORDER = "CUDA_DEVICE_ORDER"
"""Set to PCI_BUS_ID (`commands/process.py`): CUDA then counts GPUs as nvidia-smi does."""
_SLICE = re.compile(
    r"^GPU \d+: .*\(UUID: (?P<gpu>GPU-[^)]+)\)"
    r"|MIG (?P<profile>\S*?(?P<gib>\d+)gb\S*)\s+Device\s+\d+: \(UUID: (?P<id>MIG-[^)]+)\)",
    re.MULTILINE,
)
FAKE = re.compile(r"fake:(\d{1,3})(?:x(\d{1,4}))?")


def num_cores(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use, which are not all that the machine has: by its affinity
    (taskset, cpusets, Slurm) and by the quotas of its cgroups (`docker --cpus`, limits of
    Kubernetes), of which a part counts as one."""
    cores = float(len(os.sched_getaffinity(0)))
    for folder in _cgroups(mounted, own):
        with suppress(OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            quota, period = (folder / "cpu.max").read_text().split()
            cores = min(cores, float(quota) / float(period))
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
            cores = min(cores, float(quota) / float(period)) if float(quota) > 0 else cores
    return max(1, math.ceil(cores))


def _cgroups(mounted: Path, own: Path) -> Iterator[Path]:
    """The cgroups that bound our processor time, up to the outermost that is seen here. Within a
    container their paths may be those of the machine: then the mount's own folder is ours."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = mounted / (controllers or ".")
            inner = root / path.strip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, or a part (MIG). `id`: what CUDA_VISIBLE_DEVICES calls it. `memory`: bytes."""

    id: str
    name: str
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A GPU as nvidia-smi lists it; `parts`: what it is divided into, None where it is whole."""

    index: str
    uuid: str
    gpu: Gpu
    parts: tuple[Gpu, ...] | None


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


def _listed_gpus() -> list[_Listed]:
    """None where there is no driver."""
    done = _ask_driver(QUERY)
    found = []
    for line in done.stdout.splitlines() if done and done.returncode == 0 else ():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5 and fields[3].isdigit():
            index, uuid, name, mib, mode = fields
            gpu = Gpu(id=index, name=name, memory=int(mib) * 2**20)
            parts = () if mode == "Enabled" else None
            found.append(_Listed(index=index, uuid=uuid, gpu=gpu, parts=parts))
    if all(listed.parts is None for listed in found):
        return found
    parts_of = _listed_parts()
    return [
        listed
        if listed.parts is None
        else dataclasses.replace(listed, parts=tuple(parts_of.get(listed.uuid, ())))
        for listed in found
    ]


def _listed_parts() -> dict[str, list[Gpu]]:
    """The parts that GPUs are divided into (MIG), by the UUID of their GPU."""
    done = _ask_driver(SLICES)
    found: dict[str, list[Gpu]] = {}
    whole = ""
    for match in _SLICE.finditer(done.stdout if done and done.returncode == 0 else ""):
        if match["gpu"]:
            whole = match["gpu"]
            continue
        memory = int(match["gib"]) * GIB
        part = Gpu(id=match["id"], name=f"MIG {match['profile']}", memory=memory)
        found.setdefault(whole, []).append(part)
    return found


def _visible(listed: Sequence[_Listed], chosen: str | None) -> tuple[Gpu, ...]:
    """In the order of CUDA_VISIBLE_DEVICES, which ends at the first name that it does not know and
    shows nothing where one stands twice. A part of a UUID becomes the whole: vLLM looks for that.

    Of GPUs that are divided CUDA shows one part alone, and no whole GPU beside it, unless parts are
    named (NVIDIA's MIG User Guide, "Device enumeration").
    """
    words = None if chosen is None else [w for w in map(str.strip, chosen.split(",")) if w]
    _check_order(listed, words)
    known = [(entry.index, entry.uuid, entry.gpu) for entry in listed if entry.parts is None]
    first = [(entry.index, entry.uuid, entry.parts[0]) for entry in listed if entry.parts]
    if words is None:
        return tuple(gpu for _, _, gpu in first[:1] or known)
    known += first
    known += [("", part.id, part) for entry in listed for part in entry.parts or ()]
    found: list[Gpu] = []
    for word in words:
        match = [(u, g) for index, u, g in known if word == index or u.startswith(word)]
        if len(match) != 1:
            break
        ((uuid, gpu),) = match
        named = word == gpu.id or gpu.id.startswith("MIG-")
        found.append(gpu if named else dataclasses.replace(gpu, id=uuid))
    if len(set(found)) != len(found):
        return ()
    parts = [gpu for gpu in found if gpu.id.startswith("MIG-")]
    unnamed = any(not word.startswith("MIG-") for word in words[: len(found)])
    return tuple(parts[:1] if parts and unnamed else found)


def _check_order(listed: Sequence[_Listed], words: Sequence[str] | None) -> None:
    """`UserError` where a number may be another GPU for CUDA than for nvidia-smi."""
    kinds = sorted({entry.gpu.name for entry in listed})
    numbered = words is None or any(word.isdigit() for word in words)
    if os.environ.get(ORDER) == "FASTEST_FIRST" and len(kinds) > 1 and numbered:
        raise UserError(
            f"{ORDER}=FASTEST_FIRST: this machine has GPUs of several kinds ({', '.join(kinds)}), "
            f"which CUDA then numbers in an order that nvidia-smi does not tell; unset {ORDER}, or "
            "name GPUs by UUID in CUDA_VISIBLE_DEVICES (nvidia-smi -L)"
        )
