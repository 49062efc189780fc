"""The languages that the package knows, and which one a file is of: by its suffix, nothing else."""

from __future__ import annotations

from selfplay.repo.languages.language import Language
from selfplay.repo.languages.perl import Perl
from selfplay.repo.languages.python import Python
from selfplay.repo.languages.text import Text

TEXT: Language = Text()
LANGUAGES: tuple[Language, ...] = (Python(), Perl(), TEXT)
"""All of them; plain text, which has no suffix, is whatever nobody else knows."""


def language_of(path: str) -> Language:
    """The language that the file's suffix names, else plain text."""
    return next((known for known in LANGUAGES if path.endswith(known.suffixes)), TEXT)
