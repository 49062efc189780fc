"""Perl source with everything that is no code blanked out, so that braces and words can be trusted.

Perl cannot be parsed without running it; this reads the common ground and gives up (None) on what
it does not understand, rather than guess. Nothing here raises on odd input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

SUFFIXES = (".pm", ".pl", ".t", ".PL", ".psgi")
_POD = re.compile(r"=[A-Za-z].*?(?:^=cut\b[^\n]*(?:\n|\Z)|\Z)", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*(?:::\w+)*")
_NUMBER = re.compile(r"\d[\w.]*")
_VARIABLE = re.compile(r"[$@%&*]\$*(?:::)?[A-Za-z_]\w*(?:::\w+)*|\$+\d+|\$#\{?\$?\w*|\$\^\w|\$\$")
_SPECIAL = re.compile(r"\$['\"/\\`;<>,.!@&|?~=%:+-]|@[_-]")
_HEREDOC = re.compile(r"<<(~?)(?:\"([^\"\n]*)\"|'([^'\n]*)'|([A-Za-z_]\w*))")
_READ_LINE = re.compile(r"<\$?\w*>")
_PROTOTYPE = re.compile(r"\s*\(\s*[\\$@%&*;+_\[\]\s]*\)")
_QUOTES = {"q": 1, "qq": 1, "qw": 1, "m": 1, "qr": 1, "s": 2, "tr": 2, "y": 2}
_BEFORE_REGEX = frozenset(
    {
        *("split", "grep", "map", "join", "if", "unless", "and", "or", "not", "xor", "return"),
        *("push", "unshift", "while", "until", "x", "lt", "gt", "le", "ge", "eq", "ne", "cmp"),
        *("like", "unlike", "print", "when"),
    }
)
_PAIRS = {"(": ")", "[": "]", "{": "}", "<": ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """One quoted text: `start:end` with its quotes; `interpolated` for double quotes and `qq`."""

    start: int
    end: int
    text: str
    interpolated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlSource:
    """`code` has the length and lines of the source; `"` stands in place of every quoted text.

    `partner` maps the offset of each bracket to that of the other one of its pair.
    """

    code: str
    literals: tuple[Literal, ...]
    partner: dict[int, int]


@dataclass
class _Scanner:
    source: str
    out: list[str]
    literals: list[Literal] = field(default_factory=list)
    heredocs: list[tuple[bool, str]] = field(default_factory=list)
    after_value: bool = False
    """Whether the last token was a value: then `/` divides."""
    last_word: str = ""

    def blank(self, start: int, end: int, filler: str = " ") -> int:
        for i in range(start, min(end, len(self.out))):
            if self.out[i] not in "\r\n":
                self.out[i] = filler
        return end

    def quoted(self, start: int, opening: int, parts: int, interpolated: bool) -> int | None:
        """End of a quote-like operator whose first delimiter is at `opening`; None in doubt."""
        first = end = _closing(self.source, opening)
        if first is None or end is None:
            return None
        if parts == 2:
            second = first - 1
            if self.source[opening] in _PAIRS:
                second = _skip_blanks(self.source, first)
            end = _closing(self.source, second) if second < len(self.source) else None
            if end is None:
                return None
        text = self.source[opening + 1 : first - 1] if parts == 1 else ""
        self.literals.append(Literal(start=start, end=end, text=text, interpolated=interpolated))
        self.blank(start, end, '"')
        self.after_value, self.last_word = True, ""
        return end

    def here_documents(self, position: int) -> int | None:
        """Skip the bodies that begin on this line; None when one has no end."""
        for indented, word in self.heredocs:
            blank = r"[ \t]*" if indented else ""
            end = re.compile(rf"^{blank}{re.escape(word)}$", re.MULTILINE)
            match = end.search(self.source, position)
            if match is None:
                return None
            body = Literal(start=position, end=match.end(), text="", interpolated=False)
            self.literals.append(body)
            position = self.blank(position, match.end())
        self.heredocs.clear()
        return position


def scan(source: str) -> PerlSource | None:
    """Blank out comments, POD and quoted texts; None when the text cannot be read for certain."""
    scanner = _Scanner(source=source, out=list(source))
    position: int | None = 0
    while position is not None and position < len(source):
        position = _step(scanner, position)
    if position is None:
        return None
    code = "".join(scanner.out)
    partner = _brackets(code)
    if partner is None:
        return None
    return PerlSource(code=code, literals=tuple(scanner.literals), partner=partner)


def _step(scanner: _Scanner, i: int) -> int | None:
    source = scanner.source
    c = source[i]
    starts_line = i == 0 or source[i - 1] == "\n"
    if c == "\n":
        return scanner.here_documents(i + 1) if scanner.heredocs else i + 1
    if c.isspace():
        return i + 1
    if starts_line and c == "=" and (pod := _POD.match(source, i)):
        return scanner.blank(i, pod.end())
    if c == "#":
        end = source.find("\n", i)
        return scanner.blank(i, len(source) if end < 0 else end)
    variable = c in "$@" or (c in "%&*" and not scanner.after_value)
    if variable and (name := _VARIABLE.match(source, i)):
        scanner.after_value, scanner.last_word = True, ""
        return name.end()
    if variable and (special := _SPECIAL.match(source, i)):
        scanner.after_value, scanner.last_word = True, ""
        return scanner.blank(i + 1, special.end(), "v")
    if c.isalpha() or c == "_":
        return _word(scanner, i, starts_line)
    number = _NUMBER.match(source, i)
    if number:
        scanner.after_value = True
        return number.end()
    return _punctuation(scanner, i)


def _punctuation(scanner: _Scanner, i: int) -> int | None:
    source, c = scanner.source, scanner.source[i]
    if c in "\"'`":
        return scanner.quoted(i, i, 1, c == '"')
    if c == "/" and not scanner.after_value:
        end = scanner.quoted(i, i, 1, True)
        return None if end is None else _flags(source, end)
    if c == "<":
        document = _HEREDOC.match(source, i)
        if document:
            scanner.heredocs.append((bool(document[1]), document[2] or document[3] or document[4]))
            scanner.after_value = True
            return scanner.blank(i, document.end(), '"')
        line = _READ_LINE.match(source, i)
        if line and not scanner.after_value:
            scanner.after_value = True
            return scanner.blank(i, line.end(), '"')
    scanner.after_value = c in ")]}"
    scanner.last_word = "->" if source.startswith("->", i) else ""
    return i + (2 if source[i : i + 2] in ("->", "//", "=>", "::") else 1)


def _word(scanner: _Scanner, i: int, starts_line: bool) -> int | None:
    source = scanner.source
    match = _WORD.match(source, i)
    if match is None:
        return None
    word, end, before = match.group(), match.end(), scanner.last_word
    if starts_line and word in ("__END__", "__DATA__"):
        return scanner.blank(i, len(source))
    rest = source[end : end + 80].lstrip()
    plain = before in ("->", "sub") or rest.startswith("=>") or _is_key(source, i, end)
    scanner.last_word = word
    scanner.after_value = plain or word not in _BEFORE_REGEX
    if before == "sub" and (prototype := _PROTOTYPE.match(source, end)):
        return scanner.blank(end, prototype.end())
    if word not in _QUOTES or plain or not rest or rest[0] in ",;)=":
        return end
    opening = _skip_blanks(source, end)
    mark = source[opening]
    if opening > end and (mark == "#" or mark.isalnum() or mark == "_"):
        return None if mark == "#" else end
    closed = scanner.quoted(i, opening, _QUOTES[word], word == "qq")
    return closed if closed is None or word in ("q", "qq", "qw") else _flags(source, closed)


def _is_key(source: str, start: int, end: int) -> bool:
    """`{word}`: a key of a hash, whatever the word means elsewhere."""
    return source[max(0, start - 40) : start].rstrip()[-1:] == "{" and (
        source[end : end + 40].lstrip()[:1] == "}"
    )


def _closing(source: str, position: int) -> int | None:
    """Offset behind the delimiter that closes the one at `position`; None without one."""
    opening = source[position]
    closing = _PAIRS.get(opening, opening)
    depth, i = 0, position
    while i < len(source):
        c = source[i]
        if c == "\\":
            i += 1
        elif c == closing and (i > position or closing != opening):
            depth -= closing != opening
            if depth <= 0:
                return i + 1
        elif c == opening and closing != opening:
            depth += 1
        i += 1
    return None


def _skip_blanks(source: str, position: int) -> int:
    while position < len(source) and source[position].isspace():
        position += 1
    return position


def _flags(source: str, end: int) -> int:
    while end < len(source) and source[end].isalpha():
        end += 1
    return end


def _brackets(code: str) -> dict[int, int] | None:
    """Offsets of matching brackets, both ways; None when they do not match."""
    partner: dict[int, int] = {}
    waiting: list[int] = []
    for i, c in enumerate(code):
        if c in "([{":
            waiting.append(i)
        elif c in ")]}":
            if not waiting or _PAIRS[code[waiting[-1]]] != c:
                return None
            partner[i] = waiting.pop()
            partner[partner[i]] = i
    return None if waiting else partner


def plain_code(source: str) -> str | None:
    """Source without comments, POD and layout, quoted texts kept; None when it cannot be read."""
    found = scan(source)
    if found is None:
        return None
    parts: list[str] = []
    end = 0
    for literal in sorted(found.literals, key=lambda lit: lit.start):
        parts += ["".join(found.code[end : literal.start].split())]
        parts += [source[literal.start : literal.end]]
        end = literal.end
    return "".join([*parts, *found.code[end:].split()])
