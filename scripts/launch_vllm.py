"""A vLLM server that stands by itself: runs sample on it and change its weights by its URL.

    python scripts/launch_vllm.py MODEL [--host 127.0.0.1] [--port 8000] [--lora-rank 16]
        [--max-model-len 4096] [--graphs] [-- --tensor-parallel-size 8 ...]
    selfplay train ... policy=vllm 'policy.vllm.urls=[http://127.0.0.1:8000]'

MODEL is a name or directory as for policy.model. What stands behind `--` goes to vLLM. Other hosts
than the loopback interface need SELFPLAY_VLLM_TOKEN, the same here and where the run starts: a
server lets whoever may call it change its weights. On another machine it needs MODEL, and the run
directory, under the same paths. The interpreter: --python, $SELFPLAY_VLLM_PYTHON, or this one.
It becomes the server: signals and exit code are the server's.
"""

from __future__ import annotations

import argparse
import os
import sys

from selfplay.cache import cache_root
from selfplay.commands.process import name_user
from selfplay.config import VLLMConfig
from selfplay.errors import SelfplayError, UserError
from selfplay.modeling.model_files import resolve_model
from selfplay.policy.vllm.interpreter import find_python
from selfplay.policy.vllm.server import TOKEN_VARIABLE, Launch

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(argv: list[str]) -> None:
    """Become the server, or say in one line why not (exit code 2)."""
    name_user()
    try:
        command, environment = command_of(argv)
    except SelfplayError as error:
        print(f"launch_vllm: {error}", file=sys.stderr)
        sys.exit(2)
    os.execvpe(command[0], command, environment)


def command_of(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """The server's command line and environment. Raises `UserError`."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--lora-rank", type=int, default=0, help="0: whole weights alone")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--dtype", default=VLLMConfig().dtype)
    parser.add_argument("--kv-cache-gib", type=int, default=VLLMConfig().kv_cache_gib)
    parser.add_argument("--python")
    parser.add_argument("--graphs", action="store_true", help="compiled: starts later, is faster")
    asked = parser.parse_args(argv[:cut])
    token = os.environ.get(TOKEN_VARIABLE, "")
    if asked.host not in LOOPBACK and not token:
        raise UserError(
            f"--host {asked.host}: whoever reaches it there can change its weights; set "
            f"{TOKEN_VARIABLE}, the same here and where the run starts"
        )
    launch = Launch(
        python=find_python(asked.python),
        max_model_len=asked.max_model_len,
        dtype=asked.dtype,
        enforce_eager=not asked.graphs,
        kv_cache_gib=asked.kv_cache_gib,
        request_timeout_s=VLLMConfig().request_timeout_s,
        lora_rank=asked.lora_rank,
        args=tuple(argv[cut + 1 :]),
        host=asked.host,
        token=token,
    )
    model = resolve_model(asked.model, cache_root())
    return launch.command(model, asked.port, seed=0), launch.environment()


if __name__ == "__main__":
    main(sys.argv[1:])
