"""What reads the code of each language for signals and chance: one table, by `Language.name`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from selfplay.bugs.code_signals.findings import Signals, Source
from selfplay.bugs.code_signals.perl_chance import is_readable, perl_chance
from selfplay.bugs.code_signals.perl_signals import perl_signals
from selfplay.bugs.code_signals.python_chance import python_chance
from selfplay.bugs.code_signals.python_reach import python_reach
from selfplay.bugs.code_signals.python_signals import python_signals
from selfplay.repo.languages.registry import language_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeReader:
    """How one language is read. The defaults find nothing.

    signals      what a bug, a weakened test or a fix has no business doing, counted
    chance       sources of chance; with True, in the plain text with its comments and texts
    is_readable  False where only a search of the plain text can tell anything
    reach        (original tree, path, text of a file): (line, name) of the names in it through
                 which chance comes in
    """

    signals: Callable[[str], Signals] = lambda _: Signals()
    chance: Callable[[str, bool], list[Source]] = lambda *_: []
    is_readable: Callable[[str], bool] = lambda _: True
    reach: Callable[[Path, str, str], Iterable[tuple[int, str]]] = lambda *_: ()


READERS: dict[str, CodeReader] = {
    "Python": CodeReader(signals=python_signals, chance=python_chance, reach=python_reach),
    "Perl": CodeReader(
        signals=perl_signals,
        chance=perl_chance,
        is_readable=is_readable,
    ),
}
_BLIND = CodeReader()


def reader_of(path: str) -> CodeReader:
    """The reader of a file's language; one that finds nothing where there is none."""
    return READERS.get(language_of(path).name, _BLIND)
