"""The edit language of the compact scaffold: numbered listings and short line edits.

A listing shows lines of one or more files, numbered 1..N without gaps, common indentation removed:

    # Sum of the even numbers.          (a heading: not numbered, cannot be edited)
    1| def even_sum(numbers):
    2|     return sum(n for n in numbers if n % 2 == 0)

An answer is a few operations, one a line:

    N| text    line N becomes this text; given again for the same N, further lines after it
    N+ text    a new line between line N and the next listed one (after hidden lines, if any)
    N-         line N goes;  N-M: lines N to M go
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.errors import SelfplayError
from selfplay.repo.languages.python_source import split_lines
from selfplay.thinking import said

_OPERATION = re.compile(r"\s*(\d{1,6})(?:([|+]) ?(.*)|-(\d{0,6})\s*)")
_LISTED = re.compile(r"(\d{1,6})\| ?(.*)")


class EditError(SelfplayError):
    """An answer that is no edit. `reason` is a code: bad_format, bad_line or no_change."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Rows (0-based, ascending) of one file that a listing shows below an optional heading."""

    path: str
    rows: tuple[int, ...]
    heading: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLine:
    """One numbered line: where it is, the indentation taken off, and what is left."""

    path: str
    row: int
    margin: str
    text: str


class Listing:
    """Numbered lines of `sources` (path -> whole text); `lines[n - 1]` is the line numbered n."""

    def __init__(self, excerpts: Sequence[Excerpt], sources: Mapping[str, str]) -> None:
        self.sources = {excerpt.path: sources[excerpt.path] for excerpt in excerpts}
        self.excerpts = tuple(excerpts)
        self.rows = {path: split_lines(text) for path, text in self.sources.items()}
        self.lines: list[ListedLine] = []
        for excerpt in excerpts:
            shown = [_body(self.rows[excerpt.path][row]) for row in excerpt.rows]
            indents = [line[: len(line) - len(line.lstrip())] for line in shown if line.strip()]
            margin = _shared(indents)
            self.lines += [
                ListedLine(path=excerpt.path, row=row, margin=margin, text=line[len(margin) :])
                for row, line in zip(excerpt.rows, shown, strict=True)
            ]
        self._numbers = {(line.path, line.row): n for n, line in enumerate(self.lines, 1)}
        ends = itertools.accumulate(len(excerpt.rows) for excerpt in excerpts)
        self._last = frozenset(ends)

    def number(self, path: str, row: int) -> int | None:
        """Number under which a row of a file is listed, None when it is not."""
        return self._numbers.get((path, row))

    def is_last(self, number: int) -> bool:
        """Whether a line is the last of its excerpt."""
        return number in self._last

    def render(self) -> str:
        """The listing as text, excerpts separated by an empty line."""
        blocks, number = [], 0
        for excerpt in self.excerpts:
            block = [f"# {excerpt.heading}"] if excerpt.heading else []
            for _ in excerpt.rows:
                block.append(f"{number + 1}| {self.lines[number].text}".rstrip())
                number += 1
            blocks.append("\n".join(block))
        return "\n\n".join(blocks)


@dataclass(slots=True)
class _Operations:
    """What an answer asks for, by line number."""

    replaced: dict[int, list[str]] = field(default_factory=dict)
    inserted: dict[int, list[str]] = field(default_factory=dict)
    deleted: set[int] = field(default_factory=set)


def parse_edit(answer: str, listing: Listing) -> dict[str, str]:
    """Apply an answer: {path: new whole text} of the files that change. Thoughts do not count.

    Raises `EditError`: bad_format (a line is no operation, or two contradict each other), bad_line
    (a number that is not listed), no_change (nothing asked for, or nothing that changes a byte).
    Example: `parse_edit("2|     return 0", listing)`.
    """
    operations = _read(answer, len(listing.lines))
    changed = {}
    for path, rows in listing.rows.items():
        text = "".join(_apply(path, rows, listing, operations))
        source = listing.sources[path]
        if source and source[-1] not in "\r\n":
            text = _body(text) if text.endswith(("\n", "\r")) else text
        if text != source:
            changed[path] = text
    if not changed:
        raise EditError("no_change")
    return changed


def _read(answer: str, num_lines: int) -> _Operations:
    found = _Operations()
    for raw in said(answer).split("\n"):
        line = raw.rstrip("\r")
        if not line.strip() or line.lstrip().startswith("```"):
            continue
        match = _OPERATION.fullmatch(line)
        if match is None:
            raise EditError("bad_format", line[:80])
        number, sign, text, last = match.groups()
        first = int(number)
        if not 1 <= first <= num_lines:
            raise EditError("bad_line", number)
        if sign == "|":
            found.replaced.setdefault(first, []).append(text)
        elif sign == "+":
            found.inserted.setdefault(first, []).append(text)
        else:
            end = int(last or first)
            if not first <= end <= num_lines:
                raise EditError("bad_line", line[:80])
            found.deleted.update(range(first, end + 1))
    if found.deleted & found.replaced.keys():
        raise EditError("bad_format", "a line is replaced and deleted")
    return found


def _apply(
    path: str, rows: Sequence[str], listing: Listing, operations: _Operations
) -> Iterator[str]:
    """New lines of one file, with endings."""
    usual = (_ending(rows[0]) if rows else "") or "\n"
    waiting: list[str] = []
    for row, old in enumerate(rows):
        number = listing.number(path, row)
        if number is None:
            yield old
            continue
        yield from waiting
        line = listing.lines[number - 1]
        ending = _ending(old) or usual
        if number not in operations.deleted:
            for text in operations.replaced.get(number, [line.text]):
                unchanged = text == line.text
                yield (_body(old) if unchanged else _indented(line.margin, text)) + ending
        texts = operations.inserted.get(number, [])
        waiting = [_indented(line.margin, text) + ending for text in texts]
        if listing.is_last(number):
            yield from waiting
            waiting = []


def render_edit(listing: Listing, new_sources: Mapping[str, str]) -> str:
    """The shortest line edit that turns the listed sources into `new_sources`.

    `parse_edit(render_edit(listing, new), listing) == new`. Raises `ValueError` when a change
    lies outside the listed lines or below their indentation.
    """
    answer: list[str] = []
    for path, text in new_sources.items():
        old = [_body(line) for line in listing.rows[path]]
        new = [_body(line) for line in split_lines(text)]
        start = common_length(old, new)
        end = common_length(old[start:][::-1], new[start:][::-1])
        matcher = difflib.SequenceMatcher(
            None, old[start : len(old) - end], new[start : len(new) - end], autojunk=False
        )
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag != "equal":
                lines = new[start + j1 : start + j2]
                answer += _block(listing, path, start + i1, start + i2, lines)
    text = "\n".join(answer)
    try:
        correct = parse_edit(text, listing) == dict(new_sources)
    except EditError as error:
        raise ValueError(f"not expressible as an edit: {error}") from error
    if not correct:
        raise ValueError("not expressible as an edit: line endings or blank lines differ")
    return text


def edited_numbers(answer: str) -> list[int]:
    """The line numbers that an edit names, each once, in its order.

    Example: `edited_numbers("3| x = 1\n3| y = 2\n5-7")` is [3, 5].
    """
    found = (_OPERATION.fullmatch(line) for line in answer.split("\n"))
    return list(dict.fromkeys(int(match[1]) for match in found if match))


def _block(listing: Listing, path: str, first: int, last: int, new: Sequence[str]) -> Iterator[str]:
    """Operations that replace rows `first:last` of a file by `new` lines."""
    numbers = [listing.number(path, row) for row in range(first, last)]
    if None in numbers:
        raise ValueError(f"not expressible as an edit: {path} changes outside the listing")
    listed = [number for number in numbers if number is not None]
    if not listed:
        yield from _growth(listing, path, first, new)
        return
    for index, line in enumerate(new):
        number = listed[min(index, len(listed) - 1)]
        yield _operation(number, "|", _shown(listing.lines[number - 1].margin, line))
    rest = listed[len(new) :]
    if rest:
        yield f"{rest[0]}-" if len(rest) == 1 else f"{rest[0]}-{rest[-1]}"


def _growth(listing: Listing, path: str, row: int, new: Sequence[str]) -> Iterator[str]:
    """Operations that put `new` lines before a row."""
    before, after = listing.number(path, row - 1), listing.number(path, row)
    if after and after > 1 and not listing.is_last(after - 1):
        anchor, sign = after - 1, "+"
    elif before:
        anchor, sign = before, "+" if listing.is_last(before) else "|"
    elif after:
        anchor, sign = after, "|"
    else:
        raise ValueError(f"not expressible as an edit: {path} grows outside the listing")
    margin, text = listing.lines[anchor - 1].margin, listing.lines[anchor - 1].text
    if sign == "|" and before:
        yield _operation(anchor, "|", text)
    yield from (_operation(anchor, sign, _shown(margin, line)) for line in new)
    if sign == "|" and not before:
        yield _operation(anchor, "|", text)


def parse_listing(text: str) -> Listing:
    """The listing that a prompt shows, read back from the prompt's text.

    Lines numbered 1, 2, 3, ... in order are taken; each unbroken run becomes a file of its own
    ("0", "1", ...). Raises `EditError` (bad_format) when the text holds no listing.
    """
    runs: list[list[str]] = []
    count, unbroken = 0, False
    for line in text.split("\n"):
        match = _LISTED.fullmatch(line)
        if match is None or int(match.group(1)) != count + 1:
            unbroken = False
            continue
        if not unbroken:
            runs.append([])
        count, unbroken = count + 1, True
        runs[-1].append(match.group(2) + "\n")
    if not runs:
        raise EditError("bad_format", "no listing")
    excerpts = [Excerpt(path=str(i), rows=tuple(range(len(run)))) for i, run in enumerate(runs)]
    return Listing(excerpts, {str(i): "".join(run) for i, run in enumerate(runs)})


def _operation(number: int, sign: str, text: str) -> str:
    return f"{number}{sign} {text}" if text else f"{number}{sign}"


def _shown(margin: str, line: str) -> str:
    """A file's line as an answer writes it."""
    if not line.strip():
        return ""
    if not line.startswith(margin):
        raise ValueError("not expressible as an edit: a line is indented less than the listing")
    return line[len(margin) :]


def _indented(margin: str, text: str) -> str:
    return margin + text if text.strip() else ""


def _body(line: str) -> str:
    """A line without its ending."""
    return line[: len(line) - len(_ending(line))]


def _ending(line: str) -> str:
    if line.endswith("\r\n"):
        return "\r\n"
    return line[-1] if line.endswith(("\n", "\r")) else ""


def _shared(indents: Sequence[str]) -> str:
    """The indentation that all lines have in common."""
    shortest, longest = min(indents, default=""), max(indents, default="")
    return shortest[: common_length(shortest, longest)]


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the common beginning of two sequences."""
    count = 0
    while count < min(len(left), len(right)) and left[count] == right[count]:
        count += 1
    return count
