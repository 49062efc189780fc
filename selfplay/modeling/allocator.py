"""The C library's memory on a CPU: pages that a step returned are asked for again by the next one.

glibc gives every tensor above 32 MiB a mapping of its own, and unmaps it when it is freed; each
training step then waits for the kernel to clear the same pages once more. Kept in the heap, 30
supervised steps of SmolLM2-135M on two cores ran at 775 tokens a second instead of 660, with the
same peak of 4.5 GB.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""The parameters of `mallopt` (malloc.h)."""
_TOP_PAD_BYTES = 64 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep what tensors free; False where the C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _TOP_PAD_BYTES))
    kept = [mallopt(name, value) == 1 for name, value in settings]
    return all(kept)


def return_freed_memory() -> None:
    """What was kept so far goes back to the system: between sampling and learning, whose tensors
    are of other sizes, so that a process is as large as the larger of both and not as their sum."""
    if keep_freed_memory.cache_info().currsize:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
