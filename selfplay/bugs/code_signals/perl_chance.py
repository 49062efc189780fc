"""Sources of chance in Perl, found by words; comments and quoted texts are left out."""

from __future__ import annotations

import re

from selfplay.bugs.code_signals.findings import Source
from selfplay.repo.languages.perl_source import scan

_WORDS: dict[str, str] = {
    "randomness": r"\bs?rand\b|\bData::UUID\b|\bUUID::\w+",
    "clock": r"\btimes?\b(?!\s*(?:=>|\}))(?=\s*(?:\(\s*\)|;|[-+*/%,)]))|\blocaltime\b|\bgmtime\b"
    r"|\bTime::HiRes\b|\$\^T|(?<![\w$@%>)\]}])\s-[MAC]\s+[$\"']",
    "identity": r"\brefaddr\b",
    "environment": r"\$\$(?![\w{$\[:])|[%$]ENV\b|\bgetppid\b|\bgethostname\b|\bhostname\b",
    "threads": r"\bthreads\b|\bfork\b",
    "order": r"(?<!sort )(?<!sort\()(?<!scalar )(?<!scalar\()(?<![-$@%&>:])\b(?:keys|values|each)\b"
    r"(?=\s*[%$@({\\])|\breaddir\b|\bglob\b",
}


def perl_chance(source: str, raw: bool = False) -> list[Source]:
    """Sources of chance in one file; the plain text is searched where `raw` or unreadable."""
    code = None if raw else scan(source)
    plain = code.code if code else source
    return [
        Source(kind=kind, name=match.group().strip(), line=plain.count("\n", 0, match.start()) + 1)
        for kind, pattern in _WORDS.items()
        for match in re.finditer(pattern, plain)
    ]


def is_readable(source: str) -> bool:
    """Whether comments and texts can be told from code for certain."""
    return scan(source) is not None
