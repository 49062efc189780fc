"""vLLM server processes: started by us on the loopback interface, or running at a URL.

A server of ours ends with this process, however that ends (`vllm_guard.py`). It is started with
vLLM's development routes, which administrate it without a password; so it never listens elsewhere.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfplay.errors import PolicyError
from selfplay.policy.http import JsonClient
from selfplay.policy.vllm import guard as vllm_guard
from selfplay.policy.vllm.interpreter import environment_of

SERVED_NAME = "policy"
TOKEN_VARIABLE = "SELFPLAY_VLLM_TOKEN"
INSIDE = Path(__file__).parent / "inside"
"""What a server imports from us, in its own environment."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Bounds on an adapter's rank that vLLM can be started with."""
_POLL_S = 0.2
_STEP_TIMEOUT = "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"
"""After so many seconds of one step the engine ends itself: 300, unless it is told. A long prompt
with an adapter takes longer on a CPU that others use, too."""
_KEEP_ALIVE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
"""Seconds that an idle connection stays: 5, unless it is told, which is about what lies between a
step's last request and the next step's first. The one that is sent just then would be lost."""
_TAIL, _READ = 1500, 200_000
_ERROR = re.compile(r"^.*?\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): .+)$", re.MULTILINE)
_POINTER = re.compile(r"root cause|Engine core initialization failed")
_NEXT_SEED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a server is started. `python`: an interpreter whose environment has vLLM.

    `request_timeout_s`: of its answers, and so of one step of its engine. `kv_cache_gib` is read
    by the CPU build alone. `lora_rank` > 0: adapters of that rank can be loaded while it runs.
    `args` goes to the server as it is. `host`: where it listens; with a `token`, to whoever has it.
    """

    python: str
    max_model_len: int | None = None
    dtype: str = "bfloat16"
    enforce_eager: bool = True
    kv_cache_gib: int = 2
    start_timeout_s: float = 600.0
    request_timeout_s: float = 600.0
    lora_rank: int = 0
    args: Sequence[str] = ()
    host: str = "127.0.0.1"
    token: str = ""

    def command(self, model: Path, port: int, seed: int) -> list[str]:
        """The server's command line."""
        words = [self.python, "-m", "vllm.entrypoints.openai.api_server"]
        words += ["--host", self.host, "--port", str(port)]
        words += ["--model", str(model), "--served-model-name", SERVED_NAME]
        words += ["--dtype", self.dtype, "--seed", str(seed), "--enable-scale-out"]
        words += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
        if self.max_model_len is not None:
            words += ["--max-model-len", str(self.max_model_len)]
        if self.enforce_eager:
            words.append("--enforce-eager")
        if self.token:
            words += ["--middleware", "vllm_token.Token"]
        return [*words, *self._adapter_words(), *self.args]

    def _adapter_words(self) -> list[str]:
        """Two adapters in one batch, for requests that began before a new one came; two more in
        memory, so that neither of them has to be read again."""
        if not self.lora_rank:
            return []
        rank = next(rank for rank in LORA_RANKS if rank >= self.lora_rank)
        words = ["--enable-lora", "--max-lora-rank", str(rank)]
        return [*words, "--max-loras", "2", "--max-cpu-loras", "4"]

    def environment(self) -> dict[str, str]:
        """Its interpreter's, with vLLM's administration on and everything that calls out off.

        Without compiled graphs nothing else is compiled either: that takes a C++ compiler, and
        half a minute within the first request.
        """
        own = environment_of(self.python)
        path = os.pathsep.join(filter(None, (str(INSIDE), own.get("PYTHONPATH"))))
        return {
            **own,
            **({"PYTHONPATH": path, TOKEN_VARIABLE: self.token} if self.token else {}),
            **({"TORCHDYNAMO_DISABLE": "1"} if self.enforce_eager else {}),
            "VLLM_SERVER_DEV_MODE": "1",
            **({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} if self.lora_rank else {}),
            "VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib),
            _STEP_TIMEOUT: os.environ.get(_STEP_TIMEOUT, str(math.ceil(self.request_timeout_s))),
            _KEEP_ALIVE: os.environ.get(_KEEP_ALIVE, "3600"),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        }


class ServerProcess:
    """One server of ours; it can be started again after it died.

    `number` tells its log from others', and seeds what it draws: no two draw the same. `gpus`: its
    CUDA_VISIBLE_DEVICES; "": those that this process sees.
    """

    def __init__(self, launch: Launch, number: int = 0, gpus: str = "") -> None:
        self._launch = launch
        self.gpus = gpus
        self._seed = number
        self._process: subprocess.Popen[bytes] | None = None
        folder = Path(tempfile.mkdtemp(prefix="selfplay-vllm-"))
        self.log = folder / f"server{number}.log"
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._end: weakref.finalize[..., ServerProcess] | None = None

    @property
    def pid(self) -> int | None:
        """Of the guard above the server, None when it was never started."""
        return self._process.pid if self._process is not None else None

    def is_alive(self) -> bool:
        """Whether the process runs; it may not answer yet."""
        return self._process is not None and self._process.poll() is None

    def launch(self, model: Path) -> str:
        """Start on `model` (ending what ran before), without waiting; the URL."""
        self.stop()
        port = _free_port()
        self._seed += _NEXT_SEED  # what is repeated after a restart is drawn anew
        command = [sys.executable, "-E", "-S", str(vllm_guard.__file__)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._launch.command(model, port, self._seed)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
            )
        self._end = weakref.finalize(self, _end, self._process)
        return f"http://127.0.0.1:{port}"

    def environment(self) -> dict[str, str]:
        """What the server is started with."""
        chosen = {"CUDA_VISIBLE_DEVICES": self.gpus} if self.gpus else {}
        return {**self._launch.environment(), **chosen}

    def wait(self, client: JsonClient) -> None:
        """Until the server is ready. Raises `PolicyError` with the end of its log."""
        deadline = time.monotonic() + self._launch.start_timeout_s
        while time.monotonic() < deadline:
            if not self.is_alive():
                raise PolicyError(f"the vLLM server ended while starting{self._why()}")
            try:
                client.get("/health", timeout_s=5.0)
                return
            except PolicyError:
                time.sleep(_POLL_S)
        self.stop()
        raise PolicyError(
            f"the vLLM server was not ready within {self._launch.start_timeout_s:.0f} s "
            f"(policy.vllm.start_timeout_s){self._why()}"
        )

    def stop(self) -> None:
        """End the server and everything that it started. Idempotent."""
        if self._end is not None:
            self._end()

    def _why(self) -> str:
        """The last error of its log that is not about another one, which long tracebacks bury; then
        the log's end."""
        tail = self.tail(_READ)
        errors = [line for line in _ERROR.findall(tail) if not _POINTER.search(line)]
        told = f": {errors[-1]}" if errors else ""
        if "memory utilization" in told:
            told += (
                "; end what else uses the memory, or set "
                "policy.vllm.args=[--gpu-memory-utilization,0.3] (a share of all memory)"
            )
        return f"{told}\n{tail[-_TAIL:]}"

    def tail(self, num: int = _TAIL) -> str:
        """The end of the server's log, of so many bytes."""
        try:
            return self.log.read_bytes()[-num:].decode("utf-8", "replace").strip()
        except OSError:
            return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the guard's stdin, which ends the server, and wait."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(vllm_guard.GRACE_S * 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
