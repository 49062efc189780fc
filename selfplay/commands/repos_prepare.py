"""`selfplay repos prepare`: build and cache the sandboxed environment of repositories."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.config import RepoConfig, load_config
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import list_specs, load_spec

HELP = """
keys: repo=NAME_OR_PATH (a name in repos/, a path to a git work tree, or all), refresh=true,
      sandbox=auto|docker|bubblewrap|unsafe, json=true
Fetches the source, installs what its tests need, and discovers runner, tests and coverage.
"""


def run(overrides: Sequence[str]) -> int:
    """Prepare each repository; 0 when all are ready."""
    words = ["repo=all" if word == "repos=all" else word for word in overrides]
    config = load_config(RepoConfig, "prepare", words)
    directory = repos_dir(config.repos)
    specs = list_specs(directory) if config.repo == "all" else [load_spec(config.repo, directory)]
    rows: list[dict[str, Any]] = []
    with sandbox_pool(config.sandbox) as pool:
        for spec in specs:
            say(f"preparing {spec.name}")
            began = time.monotonic()
            prepared = prepare(spec, pool.sandbox, refresh=config.refresh)
            rows.append(
                {
                    "repo": prepared.name,
                    "runner": prepared.profile.runner,
                    "test_files": len(prepared.profile.test_files),
                    "tests": len(prepared.profile.tests),
                    "excluded": len(prepared.profile.excluded),
                    "left_out": prepared.profile.num_left_out(),
                    "functions": len(prepared.functions),
                    "seconds": round(time.monotonic() - began, 1),
                    "settings": dict(prepared.profile.settings),
                }
            )
    if config.json:
        print_json(rows)
    else:
        shown = [{key: _cell(value) for key, value in row.items()} for row in rows]
        print_table("prepared repositories", list(shown[0]), [list(r.values()) for r in shown])
    return 0


def _cell(value: Any) -> Any:
    """Counts and settings as text; what is empty is not shown."""
    if not isinstance(value, dict):
        return value
    return "\n".join(f"{key}: {found}" for key, found in value.items() if found)
