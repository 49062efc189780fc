"""`selfplay repos prepare`: build and cache the sandboxed environment of repositories."""

from __future__ import annotations

import time
from typing import Any

from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.config import RepoConfig
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import list_specs, load_spec

CONFIG, SCHEMA = "prepare", RepoConfig
HELP = """
keys: repo=NAME_OR_PATH (a name in repos/, a path to a git work tree, or all), refresh=true,
      sandbox=auto|docker|bubblewrap|unsafe, json=true
Fetches the source, installs what its tests need, and discovers runner, tests and coverage.
"""


def run(config: RepoConfig) -> int:
    """Prepare each repository; 0 when all are ready."""
    directory = repos_dir(config.repos)
    specs = list_specs(directory) if config.repo == "all" else [load_spec(config.repo, directory)]
    rows: list[dict[str, Any]] = []
    with sandbox_pool(config.sandbox) as pool:
        for spec in specs:
            say(f"preparing {spec.name}")
            began = time.monotonic()
            prepared = prepare(spec, pool.sandbox, refresh=config.refresh)
            seconds = time.monotonic() - began
            profile, num = prepared.profile, len(prepared.functions)
            rows.append(row_of(prepared.name, profile, num_functions=num, seconds=seconds))
    if config.json:
        print_json(rows)
    else:
        cells = [shown(row) for row in rows]
        print_table("prepared repositories", list(cells[0]), [list(c.values()) for c in cells])
    return 0


def row_of(
    name: str, profile: RepoProfile, *, num_functions: int, seconds: float
) -> dict[str, Any]:
    """What is said of one repository. `left_out`: how many tests and broken files, by reason."""
    return {
        "repo": name,
        "runner": profile.runner,
        "test_files": len(profile.test_files),
        "tests": len(profile.tests),
        "excluded": len(profile.excluded),
        "left_out": profile.num_left_out(),
        "functions": num_functions,
        "seconds": round(seconds, 1),
        "settings": dict(profile.settings),
    }


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row for a table: counts and settings as text, without what is empty."""
    return {
        key: "\n".join(f"{name}: {found}" for name, found in value.items() if found)
        if isinstance(value, dict)
        else value
        for key, value in row.items()
    }
