"""The part of the leak audit that runs inside the solver's sandbox; standard library alone.

    python leak_search.py REQUEST.json

The request names what to look for and where; the answer is a JSON list of [path, what it gives
away]. The harness imports it only for `is_leaky`.
"""

import base64
import hashlib
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

MAX_SEARCHED = 2 << 20
COPIED = 3
"""Lines of the answer in one file of a stranger from which on it is a copy under another name."""
_FOLDERS = frozenset(
    {
        *(".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
        *(".eggs", ".tox", ".nox", ".hypothesis", ".venv", "node_modules/.cache", "blib"),
    }
)
_SUFFIXES = (".pyc", ".pyo", ".orig", ".rej", ".diff.orig", ".patch.orig")
_ARTIFACT = frozenset({"bug_inject.diff", "test_weaken.diff"})
_BUILD = re.compile(r"^(build/(lib|bdist)[^/]*|dist)/")


def is_leaky(path: str) -> bool:
    """Whether a file of the tree may be a left-over that holds the original."""
    parts = path.split("/")
    return (
        any(part in _FOLDERS for part in parts[:-1])
        or parts[-1].endswith(_SUFFIXES)
        or parts[-1] in _ARTIFACT
        or bool(_BUILD.match(path))
    )


def search(request: dict[str, Any]) -> list[tuple[str, str]]:
    """[(path, what it gives away)] in the working directory and below the roots.

    roots       further folders; skipped: folders that are passed over
    contents    {SHA-256 of an original file: its name}
    lines       {line, base64: the file that holds it}; changed: names of changed source files
    """
    lines = {base64.b64decode(line): name for line, name in request["lines"].items()}
    rest = frozenset(line for line, name in lines.items() if name in request["changed"])
    found: list[tuple[str, str]] = []
    for path in _files(".", request["skipped"]):
        shown = Path(path).as_posix()
        if shown.startswith(".git/"):
            continue
        if is_leaky(shown):
            found.append((shown, "a left-over that may hold the original"))
        found += _told(path, shown, request["contents"], lines)
    tree = str(Path().resolve())
    for root in request["roots"]:
        for path in _files(root, [tree, *request["skipped"]]):
            named = path.endswith(".pyc") and _byte_code_of(path, request["changed"])
            if named and not _made_of_its_neighbour(path):
                found.append((path, "byte code of the original"))
            found += _told(path, path, request["contents"], lines, chance=rest)
    return list(dict.fromkeys(found))


def _files(root: str, skipped: list[str]) -> list[str]:
    paths: list[str] = []
    for folder, folders, files in os.walk(root):
        base = Path(folder)
        folders[:] = [name for name in folders if str((base / name).resolve()) not in skipped]
        paths += [str(base / name) for name in files]
    return sorted(paths)


def _told(
    path: str,
    shown: str,
    contents: dict[str, str],
    lines: dict[bytes, str],
    chance: frozenset[bytes] = frozenset(),
) -> list[tuple[str, str]]:
    """What one file tells. `chance`: lines of code that strangers may have written as well (the
    interpreter's library holds `return list(self.items())`, too): they count in a file of the same
    name as theirs, and where a file holds `COPIED` of them."""
    file = Path(path)
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_SEARCHED:
            return []
        content = file.read_bytes()
    except OSError:
        return []
    original = contents.get(hashlib.sha256(content).hexdigest())
    if original is not None:
        return [(shown, f"holds the original of {original}")]
    places = {line: at for line in lines if (at := content.find(line)) >= 0}
    copied = sum(line in chance for line in places) >= COPIED
    for line, at in places.items():
        name = lines[line]
        if copied or line not in chance or _name(file) == _name(Path(name)):
            number = content.count(b"\n", 0, at) + 1
            text = line.decode("utf-8", "replace")[:60]
            return [(f"{shown}:{number}", f"holds a line of the answer in {name}: {text}")]
    return []


def _name(file: Path) -> tuple[str, ...]:
    """What a file is called: every package has an `__init__.py`, so that one has its folder's name
    as well."""
    return file.parts[-2:] if file.stem == "__init__" else file.parts[-1:]


def _byte_code_of(path: str, sources: list[str]) -> bool:
    """Whether `.../pkg/mod.cpython-311.pyc` (or in `__pycache__`) belongs to `.../pkg/mod.py`."""
    parts = [part for part in path.split("/") if part != "__pycache__"]
    tail = "/".join(["", *parts[:-1], parts[-1].split(".", 1)[0]])
    names = (source.removesuffix(".py").removeprefix("src/") for source in sources)
    return any(tail.endswith(f"/{name}") for name in names)


def _made_of_its_neighbour(path: str) -> bool:
    """Whether byte code was made of the source that lies beside it, as it is now: then that file,
    which is searched as text, says all that it says (`cfnlint/schema/__init__.py` is no `schema`).

    Unless the header names a hash (PEP 552), it holds the source's time and size.
    """
    file = Path(path)
    folder = file.parent.parent if file.parent.name == "__pycache__" else file.parent
    try:
        header = file.read_bytes()[:16]
        source = folder / (file.name.split(".", 1)[0] + ".py")
        about, content = source.stat(), source.read_bytes()
    except OSError:
        return False
    if header[4:8] != bytes(4):
        same = header[:4] == importlib.util.MAGIC_NUMBER
        return same and header[8:] == importlib.util.source_hash(content)
    stamps = (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)
    return header[8:] == b"".join(stamp.to_bytes(4, "little") for stamp in stamps)


if __name__ == "__main__":
    json.dump(search(json.loads(Path(sys.argv[1]).read_text("utf-8"))), sys.stdout)
