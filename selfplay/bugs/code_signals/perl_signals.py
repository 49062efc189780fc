"""What a piece of Perl does that a bug, a weakened test or a fix has no business doing.

As `python_signals.py` does for Python, but on words: comments and POD are left out, the rest is
searched.
"""

from __future__ import annotations

import re

from selfplay.bugs.code_signals.findings import Signals
from selfplay.repo.languages.perl_source import scan

_CODE: dict[str, str] = {
    "runner": r"\bTest2?::\w+|\bTAP::\w+|\bexit\b|\b_exit\b|\b(?:END|CHECK|INIT|UNITCHECK)\s*\{"
    r"|\bCORE::\w+|\*\{|\*(?:main::|::)?[A-Za-z]\w*\s*=|\$SIG\b|%SIG\b|\bcaller\b|\bkill\b"
    r"|\bSTD(?:OUT|ERR)\b|\$0\b|\$\^\w|\bDESTROY\b|\bAUTOLOAD\b|\bdup2\b|\bno\s+strict\b|\bselect\b"
    r"|%INC\b|\$INC\b|@INC\b",
    "dynamic": r"\beval\s*(?!\s*\{)[\"'$(;]|\bdo\s+[\"'$]|\bunpack\b|\bpack\b|\brequire\s*[\"'$(]"
    r"|\bMIME::Base64\b|\bStorable\b|&\{|&\$",
    "process": r"\bsystem\b|\bexec\b|\bfork\b|\bqx\b|\bIPC::\w+|\bpipe\b",
    "network": r"\bIO::Socket\b|\bSocket\b|\bHTTP::\w+|\bLWP\b|\bNet::\w+",
    "randomness": r"\brand\b|\bsrand\b",
    "clock": r"\btime\b(?!\s*(?:=>|\}))\s*(?:\(\s*\)|;|[-+*/])|\blocaltime\b|\bgmtime\b"
    r"|\bTime::HiRes\b",
    "equality": r"\boverload\b",
    "source_reading": r"__FILE__|\bDATA\b|\bopen\b|\bB::Deparse\b",
}
_TEXT: dict[str, str] = {
    "runner": r"^\s*(?:not )?ok\s+(?:\d|-|\$)|^\s*1\.\.|Bail out!|\bTest::|/proc/|/out/|/in/"
    r"|HARNESS_|PERL5",
    "git": r"^git\b|\.git/",
    "source_reading": r"\.t$",
}


def perl_signals(source: str) -> Signals:
    """{(category, token): count} of one Perl file.

    Where the file cannot be read for certain, comments and texts are searched like code.
    """
    code = scan(source)
    texts = [literal.text for literal in code.literals] if code else source.split("\n")
    plain = code.code if code else source
    found = Signals()
    for category, pattern in _CODE.items():
        found.update((category, match.group().strip()) for match in re.finditer(pattern, plain))
    if "`" in source:
        found["process", "`"] += source.count("`")
    for category, pattern in _TEXT.items():
        found.update(
            (category, repr(text[:20])) for text in texts if re.search(pattern, text, re.MULTILINE)
        )
    return found
