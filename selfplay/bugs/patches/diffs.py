"""Git diffs as text: parse (with unidiff), check that paths stay inside the tree, reverse.

Text is UTF-8 with surrogateescape, so any bytes survive a round trip. Symbolic links, submodules,
binary hunks and copies are refused: a `Layer` cannot hold them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from io import StringIO

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from selfplay.errors import PatchError

_ESCAPES = {"n": 10, "t": 9, "r": 13, "a": 7, "b": 8, "f": 12, "v": 11, '"': 34, "\\": 92}
_ESCAPE = re.compile(r'\\([0-7]{3}|[ntrabfv"\\])')
_MODES = (None, "100644", "100755")
_MAX_NAME, _MAX_PATH = 255, 2048
"""Bytes of a file's name, and of a path, which has folders of ours before it."""
_REFUSED = (".git", ".gitattributes", ".gitmodules")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """One file of a patch; `old` is None for a created file, `new` for a deleted one."""

    old: str | None
    new: str | None
    old_mode: str | None
    new_mode: str | None
    hunks: tuple[Hunk, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path, or both of a rename."""
        return tuple(dict.fromkeys(p for p in (self.old, self.new) if p is not None))

    @property
    def added(self) -> list[str]:
        """Added lines without their ending."""
        return [line.value.rstrip("\r\n") for hunk in self.hunks for line in hunk if line.is_added]

    @property
    def removed(self) -> list[str]:
        """Removed lines without their ending."""
        return [
            line.value.rstrip("\r\n") for hunk in self.hunks for line in hunk if line.is_removed
        ]


def parse_patch(patch: str) -> tuple[FileDiff, ...]:
    """The files of a patch, in order; "" gives (). Raises `PatchError`."""
    if not patch.strip():
        return ()
    text = patch if patch.endswith("\n") else patch + "\n"
    try:
        files = tuple(_file_diff(file) for file in PatchSet(StringIO(text, newline="\n")))
    except UnidiffParseError as error:
        raise PatchError(f"patch: cannot be parsed ({_one_line(error)})") from None
    if not files:
        raise PatchError("patch: holds no diff; expected the output of `git diff`")
    return files


def check_patch(patch: str) -> None:
    """Raise `PatchError` when a patch is malformed or leaves the tree; "" is fine."""
    parse_patch(patch)


def touched_files(patch: str) -> tuple[str, ...]:
    """Paths that a patch creates, changes, deletes or renames, in order. Raises `PatchError`."""
    return tuple(dict.fromkeys(path for file in parse_patch(patch) for path in file.paths))


def reverse_patch(patch: str) -> str:
    """The patch that undoes `patch`. Raises `PatchError`."""
    return "".join(_reverse_file(file) for file in parse_patch(patch))


def reverse_hunks(patch: str) -> tuple[tuple[str, str], ...]:
    """(`PATH:LINE`, the patch that undoes this hunk alone) of each hunk, where a file has several.

    To be applied where the whole patch is; LINE is the hunk's first line there. A rename stays.
    """
    return tuple(
        (
            f"{file.new}:{hunk.target_start}",
            _reverse_file(replace(file, old=file.new, old_mode=None, new_mode=None, hunks=(hunk,))),
        )
        for file in parse_patch(patch)
        for hunk in file.hunks
        if len(file.hunks) > 1
    )


def check_path(path: str) -> str:
    """`path` when it is a plain relative POSIX path inside the tree, else `PatchError`."""
    if any(part.lower().rstrip(" .") in _REFUSED for part in inside_tree(path).split("/")):
        raise PatchError(f"path {path!r}: git's own files must not be changed")
    return path


def inside_tree(path: str) -> str:
    """`path` when it is relative and stays inside the tree, as a file that is read may be."""
    parts = path.split("/")
    if path.startswith("/") or any(p in ("", ".", "..") for p in parts) or "\0" in path:
        raise PatchError(f"path {path!r}: must be relative and stay inside the repository")
    sizes = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    if max(sizes) > _MAX_NAME or sum(sizes) + len(sizes) > _MAX_PATH:
        raise PatchError(f"path {path[:80]!r}...: no file can have so long a name")
    return path


def quote_path(path: str) -> str:
    """A path as git writes it in a header: quoted when it holds control characters or quotes."""
    if not re.search(r'[\x00-\x1f"\\\x7f]', path):
        return path
    names = {code: name for name, code in _ESCAPES.items()}
    quoted = "".join(
        f"\\{names[ord(c)]}" if ord(c) in names else f"\\{ord(c):03o}" if c < " " else c
        for c in path
    )
    return f'"{quoted}"'


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _unquote(name: str) -> str:
    if not (name.startswith('"') and name.endswith('"') and len(name) > 1):
        return name
    raw = bytearray()
    position = 0
    for match in _ESCAPE.finditer(name, 1, len(name) - 1):
        raw += name[max(position, 1) : match.start()].encode("utf-8", "surrogateescape")
        code = match[1]
        raw.append(_ESCAPES[code] if code in _ESCAPES else int(code, 8) & 255)
        position = match.end()
    raw += name[max(position, 1) : -1].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def _side(name: str) -> str | None:
    if name == "/dev/null":
        return None
    plain = _unquote(name)
    if "/" not in plain:
        raise PatchError(f"path {plain!r}: expected a prefix such as a/ or b/")
    return check_path(plain.split("/", 1)[1])


def _file_diff(file: PatchedFile) -> FileDiff:
    info = [line.rstrip("\n") for line in file.patch_info or ()]
    if file.is_binary_file:
        raise PatchError(f"{file.path}: binary changes are not supported")
    if file.source_mode not in _MODES or file.target_mode not in _MODES:
        raise PatchError(f"{file.path}: links, submodules and odd modes are not supported")
    if any(line.startswith("copy ") for line in info):
        raise PatchError(f"{file.path}: copies are not supported; write the new file out")
    old, new = _names(file, info)
    if old is None and new is None:
        raise PatchError("patch: a file has no name on either side")
    return FileDiff(
        old=old,
        new=new,
        old_mode=file.source_mode,
        new_mode=file.target_mode,
        hunks=tuple(hunk for hunk in file),
    )


def _names(file: PatchedFile, info: list[str]) -> tuple[str | None, str | None]:
    renames = [line.split(" ", 2) for line in info if line.startswith("rename ")]
    renamed = {words[1]: words[2] for words in renames if len(words) == 3}
    if {"from", "to"} <= renamed.keys():
        return check_path(_unquote(renamed["from"])), check_path(_unquote(renamed["to"]))
    header = next((line[11:] for line in info if line.startswith("diff --git ")), "")
    same = _same_name(header)
    old, new = file.source_file, file.target_file
    if same is None:
        sides = _side(old), _side(new)
        if header and None not in sides and sides[0] != sides[1]:
            raise PatchError(f"path {sides[0]!r}: the two sides of its header differ")
        return sides
    check_path(same)
    if len(file) and any(_side(name) not in (None, same) for name in (old, new)):
        raise PatchError(f"path {same!r}: its headers name different files")
    return (None if old == "/dev/null" else same), (None if new == "/dev/null" else same)


def _same_name(header: str) -> str | None:
    """The name in `a/NAME b/NAME` (possibly quoted), None when the two differ."""
    half = len(header) // 2
    if len(header) % 2 == 0 or header[half : half + 1] != " ":
        return None
    left, right = _unquote(header[:half]), _unquote(header[half + 1 :])
    left, right = left.partition("/")[2], right.partition("/")[2]
    return left if left == right and left else None


def _reverse_file(file: FileDiff) -> str:
    old, new = file.new, file.old
    left, right = old or new, new or old
    assert left is not None and right is not None
    head = [f"diff --git {quote_path('a/' + left)} {quote_path('b/' + right)}"]
    if old is None:
        head.append(f"new file mode {file.old_mode or '100644'}")
    elif new is None:
        head.append(f"deleted file mode {file.new_mode or '100644'}")
    elif file.old_mode != file.new_mode and file.old_mode and file.new_mode:
        head += [f"old mode {file.new_mode}", f"new mode {file.old_mode}"]
    if old and new and old != new:
        head += [f"rename from {quote_path(old)}", f"rename to {quote_path(new)}"]
    if file.hunks:
        head.append(_file_line("---", "a/", old))
        head.append(_file_line("+++", "b/", new))
    return "\n".join(head) + "\n" + "".join(_reverse_hunk(hunk) for hunk in file.hunks)


def _file_line(mark: str, prefix: str, path: str | None) -> str:
    if path is None:
        return f"{mark} /dev/null"
    name = quote_path(prefix + path)
    return f"{mark} {name}\t" if " " in name and not name.startswith('"') else f"{mark} {name}"


def _reverse_hunk(hunk: Hunk) -> str:
    section = f" {hunk.section_header.rstrip()}" if hunk.section_header.strip() else ""
    out = [
        f"@@ -{hunk.target_start},{hunk.target_length} "
        f"+{hunk.source_start},{hunk.source_length} @@{section}\n"
    ]
    minus: list[str] = []
    plus: list[str] = []
    last: list[str] = out
    for line in hunk:
        if line.is_added:
            last = minus
            minus.append(f"-{line.value}")
        elif line.is_removed:
            last = plus
            plus.append(f"+{line.value}")
        elif line.line_type == "\\":
            last.append("\\ No newline at end of file\n")
        elif line.is_context:
            out += minus + plus
            minus.clear()
            plus.clear()
            last = out
            out.append(f" {line.value}")
    return "".join(out + minus + plus)
