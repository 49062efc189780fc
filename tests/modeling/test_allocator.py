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
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_freed_tensor_is_used_again() -> None:
    faults = {
        case: int(subprocess.check_output([sys.executable, "-c", SCRIPT, case], text=True))
        for case in ("plain", "kept")
    }
    assert faults["plain"] > 20 * 16384, "glibc keeps it by itself: the setting can go"
    assert faults["kept"] < faults["plain"] / 2
