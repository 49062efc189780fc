"""What a CPU learner frees stays with it: few pages are faulted in again."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from selfplay.modeling.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def allocate():
    for _ in range(20):
        torch.ones(1 << 24)
allocate()  # until the heap has a free place that is large enough, aligned too: up to 12 tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
allocate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_freed_tensor_is_used_again() -> None:
    faults = {
        case: int(subprocess.check_output([sys.executable, "-c", SCRIPT, case], text=True))
        for case in ("plain", "kept")
    }
    assert faults["plain"] > 20 * 16384, "glibc keeps it by itself: the setting can go"
    assert faults["kept"] < faults["plain"] / 10


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_what_was_kept_can_be_returned() -> None:
    script = """
import re
import torch
from pathlib import Path
from selfplay.modeling.allocator import keep_freed_memory, return_freed_memory
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
assert keep_freed_memory()
kept = [torch.ones(1 << 24), torch.ones(1000)]
del kept[0]
before = resident()
return_freed_memory()
print(before - resident())
"""
    returned = int(subprocess.check_output([sys.executable, "-c", script], text=True))
    assert returned > 50_000, "KiB of the 65,536 that a tensor had held"
