"""The leak audit: what a solver in its own sandbox could read the answer from.

It runs in the very session that a solver gets (`roles/agentic/workspace.py`), and searches all that
can be read there beside the system's folders: files, byte code, installed packages, build folders,
git's objects. It looks for left-overs, for the original content of changed files, for the very
lines that the bug removed, and for lines that the commit of a mined bug added to change logs and
documents (docs/validation.md, "Leaks").
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs import leak_search
from selfplay.bugs.leak_search import MAX_SEARCHED, is_leaky
from selfplay.bugs.patches.diffs import parse_patch, touched_files
from selfplay.bugs.patches.layers import read_file
from selfplay.errors import SandboxError
from selfplay.sandbox.base import Environment
from selfplay.sandbox.session.session import Session
from selfplay.types import BugArtifact, Layer

__all__ = ["Secret", "added_lines", "find_leaks", "is_leaky", "list_files"]
MIN_DISTINCTIVE = 16
"""Characters, blanks left out, from which a line is worth looking for."""
MAX_LINES = 200
AUDIT_TIMEOUT_S = 180.0
FOLDER = "/tmp/selfplay-audit"
_SYSTEM = frozenset({"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"})
_NEVER = ("/proc", "/sys", "/dev", "/in", "/out", FOLDER)
_GIT = """\
[ -d .git ] || exit 0
n=$(git rev-list --all --count 2>/dev/null) && [ "$n" != 1 ] && echo ".git: $n commits"
for f in packed-refs ORIG_HEAD FETCH_HEAD; do [ ! -e .git/$f ] || echo ".git/$f: left behind"; done
[ -z "$(find .git/logs -type f -size +0 2>/dev/null)" ] || echo ".git/logs: a reflog"
[ ! -e .git/objects/info/alternates ] || echo ".git/objects/info/alternates: other objects"
ls .git/objects/pack/*.pack >/dev/null 2>&1 && echo ".git/objects/pack: packed objects"
[ -z "$(git remote)" ] || echo ".git: has a remote"
[ -z "$(git fsck --unreachable --no-reflogs --no-progress 2>/dev/null)" ] \
  || echo ".git: unreachable objects"
exit 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """What nobody may find in a sealed sandbox.

    contents    SHA-256 of the original content -> path of each file that the artifact changes
    lines       line -> its file: lines that the original holds exactly once and that the bug takes
                away and does not write again, and those that the caller knows of
    changed     files that the bug patch changes
    """

    contents: Mapping[str, str]
    lines: Mapping[bytes, str]
    changed: tuple[str, ...]

    @classmethod
    def of(
        cls, tree: Path, artifact: BugArtifact, told: Mapping[bytes, str] | None = None
    ) -> Secret:
        """The secret of an artifact on its original tree; `told` are further lines of it."""
        changed = touched_files(artifact.bug_patch)
        paths = (*changed, *touched_files(artifact.weakening_patch))
        contents = ((read_file(tree, {}, path), path) for path in paths)
        return cls(
            contents={hashlib.sha256(c).hexdigest(): p for c, p in contents if c and c.strip()},
            lines={**_distinctive_lines(tree, artifact), **(told or {})},
            changed=changed,
        )


def find_leaks(session: Session, environment: Environment, secret: Secret) -> list[str]:
    """What a solver in this session could read the answer from, "file:line: what" each.

    The session must be one of the audit's own: the secret is written into it. Raises
    `SandboxError`.
    """
    roots = [inside for inside in environment.mounts.values() if inside not in _SYSTEM]
    if environment.image is not None:
        roots += ["/", "/usr/local"]
    request = {
        "roots": roots,
        "skipped": [*_NEVER, *(_SYSTEM if environment.image is not None else ())],
        "contents": dict(secret.contents),
        "lines": {
            base64.b64encode(line).decode(): name
            for line, name in list(secret.lines.items())[:MAX_LINES]
        },
        "changed": list(secret.changed),
    }
    history = session.run(_GIT, AUDIT_TIMEOUT_S)
    session.write(f"{FOLDER}/search.py", Path(leak_search.__file__).read_bytes())
    session.write(f"{FOLDER}/request.json", json.dumps(request).encode("ascii"))
    command = f"python -I -S {FOLDER}/search.py {FOLDER}/request.json"
    done = session.run(command, AUDIT_TIMEOUT_S, max_output=16 << 20)
    if failure := history.failure or done.failure:
        raise SandboxError(f"the leak audit could not be made: {failure}")
    found = [f"{path}: {what}" for path, what in json.loads(done.output)]
    return [*history.output.decode(errors="replace").splitlines(), *found]


def added_lines(before: Layer, after: Layer, paths: Iterable[str]) -> dict[bytes, str]:
    """{line: file} of what a commit added to these files, as far as it is worth looking for."""
    found: dict[bytes, str] = {}
    for path in paths:
        old = {line.strip() for line in (before[path].content or b"").splitlines()}
        new = {line.strip() for line in (after[path].content or b"").splitlines()}
        found |= {line: path for line in new - old if _is_distinctive(line)}
    return found


def _is_distinctive(line: bytes) -> bool:
    return len(b"".join(line.split())) >= MIN_DISTINCTIVE


def _distinctive_lines(tree: Path, artifact: BugArtifact) -> dict[bytes, str]:
    files = parse_patch(artifact.bug_patch)
    added = [_raw(line) for file in files for line in file.added]
    counts: dict[bytes, int] = {}
    names: dict[bytes, str] = {}
    for file in files:
        for line in map(_raw, file.removed):
            if _is_distinctive(line) and not any(line in a for a in added):
                counts[line], names[line] = 0, file.old or file.new or ""
    for path in list_files(tree) if counts else ():
        if not is_leaky(path):
            content = _read(tree / path)
            for line in counts:
                counts[line] += content.count(line)
    return {line: names[line] for line, number in counts.items() if number == 1}


def _raw(line: str) -> bytes:
    return line.strip().encode("utf-8", "surrogateescape")


def _read(file: Path) -> bytes:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_SEARCHED:
        return b""
    return file.read_bytes()


def list_files(root: Path) -> list[str]:
    """Relative paths of all files and links below `root`."""
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        base = Path(folder).relative_to(root)
        found += [(base / name).as_posix() for name in (*files, *links)]
    return sorted(found)
