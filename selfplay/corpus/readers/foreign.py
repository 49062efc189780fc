"""Instances of SWE-bench and SWE-smith as lines of a suite: what they leave to their harness added.

SWE-bench names the buggy tree (`base_commit`, or an image of it), the gold patch and the tests.
SWE-smith names an image of the *original*, and its `patch` is the bug. Neither says how tests are
run, so this is known for pytest's ids alone.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from selfplay.bugs.patches.diffs import reverse_patch, touched_files
from selfplay.bugs.patches.foreign import as_git_writes
from selfplay.bugs.test_runs.scripts import parser_source, pytest_script, script_runner
from selfplay.errors import PatchError, UserError

JSON_FIELDS = ("FAIL_TO_PASS", "PASS_TO_PASS", "test_files", "environment", "limits", "meta")
"""What may be JSON text: lists in SWE-bench's own files, and everything nested in Parquet."""
IMAGES = ("image_name", "image", "docker_image")
"""Keys by which data sets name an image, the first that is not empty counts."""
_NAMES = {"fail_to_pass": "FAIL_TO_PASS", "pass_to_pass": "PASS_TO_PASS"}
"""SWE-bench Pro writes them small."""
_TESTS = ("FAIL_TO_PASS", "PASS_TO_PASS")
_PATCHES = ("patch", "test_patch", "weakening_patch")
_PYTEST_ID = re.compile(r"(?P<file>[^\s:]+\.py)(::.*)?", re.DOTALL)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PROGRESS = re.compile(r"(\[gw\d+\] )?\[ *\d+(%|/\d+)\]")
"""What a parser of pytest's output took for a test: how far a run is (SWE-bench#660)."""


def completed(document: Any) -> Any:
    """The line of a suite that an instance stands for; a line of ours as it is.

    Raises `UserError` that begins with the field.
    """
    if not isinstance(document, dict):
        return document
    named = {_NAMES.get(str(name), str(name)): value for name, value in document.items()}
    line: dict[str, Any] = {name: _value(name, value) for name, value in named.items()}
    smith = "base_commit" not in line and "image_name" in line
    if not smith and "test_script" in line and "environment" in line:
        return line
    for name in (
        "instance_id",
        "repo",
        "patch",
        "FAIL_TO_PASS",
        *(() if smith else ("base_commit",)),
    ):
        if not line.get(name):
            raise UserError(f"{name}: is {'empty' if name in line else 'missing'}")
    for name in _TESTS:
        tests = line.get(name) or []
        if not isinstance(tests, list):
            raise UserError(f"{name}: neither JSON nor a list ({str(tests)[:40]!r})")
        line[name] = [t for t in tests if not _PROGRESS.fullmatch(str(t).strip())]
    # data sets hold what a strip() or a terminal left of a patch, as answers do (datasets#8120)
    patches = {n: as_git_writes(str(line[n]), lambda _: True) for n in _PATCHES if line.get(n)}
    try:
        line |= patches
        line |= _smith(line) if smith else _bench(line)
        return line | _tests(line)
    except PatchError as error:
        raise UserError(f"patch: {error}") from None


def _value(name: str, value: Any) -> Any:
    """Lists and objects may be JSON text, or what Python prints of a list (SWE-bench_Pro-os#14)."""
    if name not in JSON_FIELDS or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        found = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    return found if isinstance(found, list) else value


def _bench(line: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of `base_commit` with the gold patch and the oracle tests is the original."""
    name, commit = str(line["repo"]), str(line["base_commit"])
    image = next((str(line[key]) for key in IMAGES if line.get(key)), "")
    if image:
        source: dict[str, Any] = {"image": {"image": image}}
    elif _COMMIT.fullmatch(commit) and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        source = {"git": {"url": f"https://github.com/{name}.git", "commit": commit}}
    else:
        raise UserError(
            f"base_commit: {commit!r} of repo {name!r}: neither 40 hexadecimal digits and "
            "OWNER/NAME, nor an image; add image (its name) or environment (docs/formats.md)"
        )
    environment = line.get("environment") or {"repo": name, "source": source}
    told = {"test_patch": str(line.get("test_patch") or "")}
    return told | on_its_own(line, {**environment, "state": "buggy"})


def _smith(line: Mapping[str, Any]) -> dict[str, Any]:
    """`patch` is the bug; what our own export adds beside it is taken where it stands."""
    image = {"image": {"image": str(line["image_name"])}}
    found: Any = line.get("environment") or {"repo": _plain(str(line["repo"])), "source": image}
    return {
        "repo": str(found["repo"]),
        "base_commit": str(line["repo"]).rpartition(".")[2],
        "patch": reverse_patch(str(line["patch"])),
        "test_patch": reverse_patch(str(line.get("weakening_patch", ""))),
        "problem_statement": str(line.get("problem_statement") or ""),
        "environment": found,
    }


def on_its_own(line: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    """`repo` is NAME@HASH: each instance has a tree of its own."""
    parts = [str(line.get(name, "")) for name in ("base_commit", "patch", "test_patch")]
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return {
        "repo": f"{_plain(str(line['repo']))}@{digest[:12]}",
        "environment": environment,
        "problem_statement": str(line.get("problem_statement") or ""),
    }


def _tests(line: Mapping[str, Any]) -> dict[str, Any]:
    """Script, parser and files of the tests, from their ids where the instance does not say."""
    script = str(line.get("test_script") or "")
    runner = script_runner(script) if script else "pytest"
    files = line.get("test_files") or _files(line, given=bool(script))
    touched = [path for path in touched_files(line["test_patch"]) if path not in files]
    parser = line.get("test_parser") or (parser_source(runner) if runner else "")
    if not parser:
        raise UserError("test_script: is none of ours; add test_parser (docs/formats.md)")
    return {
        "PASS_TO_PASS": line["PASS_TO_PASS"],
        "test_script": script or pytest_script(files),
        "test_parser": parser,
        "test_files": [*files, *touched],
    }


def _files(line: Mapping[str, Any], *, given: bool) -> list[str]:
    """The files of pytest's ids; with a script of its own an id may have any form `FILE::...`."""
    found: dict[str, None] = {}
    for name, test in ((n, t) for n in _TESTS for t in line[n]):
        match = _PYTEST_ID.fullmatch(str(test))
        if match is None and not given:
            raise UserError(
                f"{name}: {test!r} is no id of pytest (FILE.py::NAME), so nothing says how "
                "it is run; add test_script, test_parser and test_files (docs/formats.md)"
            )
        found[match["file"] if match else str(test).split("::", 1)[0]] = None
    return list(found)


def _plain(repo: str) -> str:
    """OWNER/NAME as the name of a repository here: NAME."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(repo).name).strip("-.")
    return name or "repository"
