"""Runs one command and ends it, with all its processes, when whoever holds our stdin is gone.

    python vllm_guard.py COMMAND ...

A program of its own that imports nothing of the package: an inference server must not outlive a
run that was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 10.0


def main(command: list[str]) -> int:
    """The command's exit code; 128 + n when signal n ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the holder decides
    signal.signal(signal.SIGTERM, lambda *_: end(child))
    threading.Thread(target=watch, args=(child,), daemon=True).start()
    code = child.wait()
    end(child)  # what it started and left
    return code if code >= 0 else 128 - code


def watch(child: subprocess.Popen[bytes]) -> None:
    """End the child when stdin closes."""
    while os.read(0, 4096):
        pass
    end(child)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        end(child, signal.SIGKILL)


def end(child: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Signal the child's whole process group; one that is gone is no error."""
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
