"""Harbor's task folders as lines of a suite.

A task can be anything that a container does; a bug is one that says which tests judge it: those of
our own export (`tests/request.json`), and those that Harbor's adapters of SWE-bench and SWE-smith
write, which keep the instance (`tests/config.json`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from selfplay.corpus.readers.foreign import IMAGES, on_its_own
from selfplay.errors import UserError

_FROM = re.compile(r"^FROM\s+(?:--platform=\S+\s+)?(?P<image>[^\s$]+)\s*$", re.MULTILINE)


def harbor_folders(path: Path) -> list[Path]:
    """The task folders at, or right below, a path (or below its `tasks/`)."""
    if (path / "task.toml").is_file():
        return [path]
    found = sorted([*path.glob("*/task.toml"), *path.glob("tasks/*/task.toml")])
    return [file.parent for file in found]


def harbor_line(folder: Path) -> dict[str, Any]:
    """One task. Raises `UserError` that names folder, file and remedy."""
    tests = folder / "tests"
    if (tests / "request.json").is_file():
        return _ours(folder)
    if (tests / "config.json").is_file():
        instance = _object(tests / "config.json")
        if "FAIL_TO_PASS" in instance and "patch" in instance:
            return {**instance, **_image(folder, instance)}
    raise UserError(
        f"{folder}: neither tests/request.json nor an instance in tests/config.json says which "
        "tests must pass, so only its own tests/test.sh can grade it: run it by `harbor run -p "
        f"{folder}`, or write the bug as a line of a suite (docs/formats.md)"
    )


def _ours(folder: Path) -> dict[str, Any]:
    """Of our own export: the line is kept whole; its tree is the agent's, in the folder itself."""
    line = _object(folder / "tests" / "request.json").get("line")
    if not isinstance(line, dict) or not isinstance(line.get("environment"), dict):
        raise UserError(f"{folder}: tests/request.json holds no line of a suite; export it again")
    environment = line["environment"]
    if "image" in (environment.get("source") or {}):
        return line
    requirements = folder / "environment" / "requirements.txt"
    install = requirements.read_text(encoding="utf-8").split("\n") if requirements.is_file() else []
    source = {"local": {"path": str((folder / "environment" / "repo").resolve())}}
    placed = {
        "repo": line["repo"],
        "source": source,
        "install": [name for name in install if name.strip()],
        "license": str(environment.get("license") or ""),
        "state": "buggy",
        **{key: environment[key] for key in ("tests", "suite_timeout_s") if key in environment},
    }
    return line | on_its_own(line, placed)


def _image(folder: Path, instance: dict[str, Any]) -> dict[str, Any]:
    """The image that the task's own Dockerfile begins with, where the instance names none."""
    file = folder / "environment" / "Dockerfile"
    found = _FROM.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    named = any(instance.get(key) for key in IMAGES)
    return {"image": found["image"]} if found and not named else {}


def _object(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(document, dict):
        raise UserError(f"{file}: not a JSON object")
    return document
