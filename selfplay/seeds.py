"""Reproducible randomness: every draw is a function of names, so a resumed step repeats itself."""

from __future__ import annotations

import hashlib
import random


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, equal on every machine and in every process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derive_rng(*parts: object) -> random.Random:
    """A generator of its own for one purpose, e.g. `derive_rng(run_seed, step, "sampler")`."""
    return random.Random(derive_seed(*parts))
