"""The artifact directory: five files that define a bug (docs/formats.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.types import BugArtifact, Limits, SolveTask, ValidationReport

SCRIPT, FILES, PARSER = "test_script.sh", "test_files.txt", "test_parser.py"
BUG, WEAKENING, META = "bug_inject.diff", "test_weaken.diff", "meta.json"
MAX_BYTES = 8 << 20


def read_artifact(directory: Path) -> BugArtifact:
    """Read the five files (and `meta.json` where there is one). Raises `UserError`."""
    if not directory.is_dir():
        raise UserError(f"artifact={directory}: no such directory")
    return BugArtifact(
        test_script=_read(directory / SCRIPT),
        test_files=parse_test_files(_read(directory / FILES)),
        test_parser=_read(directory / PARSER),
        bug_patch=_read(directory / BUG),
        weakening_patch=_read(directory / WEAKENING),
        meta=_read_meta(directory / META),
    )


def write_artifact(artifact: BugArtifact, directory: Path) -> None:
    """Write the artifact as a directory that appears all at once, replacing an older one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, text in _texts(artifact).items():
        (partial / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    (partial / SCRIPT).chmod(0o755)
    if artifact.meta:
        (partial / META).write_text(json.dumps(dict(artifact.meta), indent=1, sort_keys=True))
    if directory.exists():
        older = directory.with_name(f".{directory.name}.{os.getpid()}.old")
        shutil.rmtree(older, ignore_errors=True)
        directory.rename(older)
        partial.rename(directory)
        shutil.rmtree(older)
    else:
        partial.rename(directory)


def artifact_id(artifact: BugArtifact) -> str:
    """Short content hash of the five files; `meta` has no part in it."""
    digest = hashlib.sha256()
    for name, text in sorted(_texts(artifact).items()):
        raw = text.encode("utf-8", "surrogateescape")
        digest.update(f"{name}\0{len(raw)}\0".encode() + raw)
    return f"bug-{digest.hexdigest()[:12]}"


def solve_task(
    repo: str, artifact: BugArtifact, report: ValidationReport, limits: Limits
) -> SolveTask:
    """The solver's task that a valid artifact specifies; `report` is its validation."""
    return SolveTask(
        bug_id=artifact_id(artifact),
        repo=repo,
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
        failure_output=report.failure_output,
        limits=limits,
    )


def parse_test_files(text: str) -> tuple[str, ...]:
    """Paths of `test_files.txt`: one a line, blank lines skipped, a leading ./ dropped."""
    lines = (line.strip().removeprefix("./") for line in text.split("\n"))
    return tuple(dict.fromkeys(line for line in lines if line))


def _texts(artifact: BugArtifact) -> dict[str, str]:
    return {
        SCRIPT: artifact.test_script,
        FILES: "".join(f"{path}\n" for path in artifact.test_files),
        PARSER: artifact.test_parser,
        BUG: artifact.bug_patch,
        WEAKENING: artifact.weakening_patch,
    }


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_BYTES:
            raise UserError(f"{file}: larger than {MAX_BYTES} bytes")
        return file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        names = ", ".join((SCRIPT, FILES, PARSER, BUG, WEAKENING))
        raise UserError(f"{file}: {error.strerror}; an artifact holds {names}") from None


def _read_meta(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        meta = json.loads(_read(file))
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise UserError(f"{file}: expected a JSON object")
    return meta
