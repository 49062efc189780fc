"""What a run that has results may change in its configuration."""

from __future__ import annotations

from typing import Any

from selfplay.config.loading import GONE

FREE_KEYS = frozenset(
    {"steps", "max_minutes", "resume", "json", "runs_dir", "sandbox", "metrics", "dry_run"}
    | {"devices", "split"}
)
"""Top-level keys of the configuration that a resumed run may change."""


def changed_keys(former: Any, data: Any, defaults: Any, prefix: str = "") -> list[str]:
    """Dotted names of the values that differ, `FREE_KEYS` and `GONE` left out."""
    if not isinstance(former, dict) or not isinstance(data, dict):
        return [] if former == data else [prefix or "the configuration"]
    absent = object()
    changed: list[str] = []
    for key in sorted({*former, *data}, key=str):
        name = f"{prefix}.{key}" if prefix else str(key)
        if name not in FREE_KEYS and name not in GONE:
            default = defaults.get(key, absent) if isinstance(defaults, dict) else absent
            old, new = former.get(key, default), data.get(key, absent)
            changed += changed_keys(old, new, default, name)
    return changed
