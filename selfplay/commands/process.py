"""What every process does that runs commands: logs to stderr, errors as exit codes."""

from __future__ import annotations

import getpass
import logging
import os
import sys
from collections.abc import Callable

from selfplay.errors import InfrastructureError, UserError
from selfplay.files import at_home
from selfplay.placement import ORDER, num_cores
from selfplay.sandbox.host import share_files


class _CurrentStderr(logging.Handler):
    """Writes to what `sys.stderr` is at the time: a picture that is redrawn puts lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def set_up() -> None:
    """Logs to stderr by $SELFPLAY_LOG, what libraries read from the environment, and files that
    sandboxes can read. Idempotent."""
    logging.basicConfig(
        level=os.environ.get("SELFPLAY_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[_CurrentStderr()],
    )
    share_files()
    name_user()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault(ORDER, "PCI_BUS_ID")  # as nvidia-smi lists GPUs, not the fastest first
    if num_cores() < len(os.sched_getaffinity(0)):  # which is all that torch looks at
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cores()))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # sandboxes share the cores


def name_user() -> None:
    """A name and a home for a user who is a mere number, as containers are started with: torch,
    vLLM and altair end at their import where they find none. The home is Docker's, or the cache."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = f"uid{os.geteuid()}"
    if at_home("~") == "~":
        os.environ["HOME"] = os.environ.get("SELFPLAY_CACHE") or "/"


def guarded(function: Callable[[], int]) -> int:
    """The exit code of `function`; what a user or the machine did wrong is one line on stderr."""
    try:
        return function()
    except UserError as error:
        sys.stderr.write(f"selfplay: {error}\n")
        return 2
    except InfrastructureError as error:
        sys.stderr.write(f"selfplay: {error}\n")
        return 3
    except KeyboardInterrupt:
        sys.stderr.write("selfplay: interrupted; the run directory holds everything so far\n")
        return 130
    except BrokenPipeError:
        return 0
