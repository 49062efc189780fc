"""Which functions and lines are most suspicious, from which tests reach them (spectrum-based)."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from selfplay.bugs.test_runs.spectrum import Spectrum
from selfplay.compact.edits import Listing


def ochiai(
    failing: Iterable[str], passing: Iterable[str], reached: Mapping[str, Collection[str]]
) -> dict[str, float]:
    """Score of each function that a failing test reaches: ef / sqrt(F * (ef + ep)).

    failing, passing   test ids; F is the number of failing ones that `reached` knows
    reached            {test id: functions it reaches}
    ef, ep             failing and passing tests that reach the function

    Example: one failing test reaches f and g, one passing test reaches g:
    f scores 1 / sqrt(1 * 1) = 1.0 and g scores 1 / sqrt(1 * 2) = 0.707.
    """
    failed = [test for test in failing if test in reached]
    in_failing = Counter(f for test in failed for f in set(reached[test]))
    in_passing = Counter(f for test in passing for f in set(reached.get(test, ())))
    return {
        function: count / math.sqrt(len(failed) * (count + in_passing[function]))
        for function, count in in_failing.items()
    }


def reached_by_all(failing: Iterable[str], reached: Mapping[str, Collection[str]]) -> set[str]:
    """Functions that every failing test reaches: where a single fault must lie."""
    sets = [set(reached[test]) for test in failing if test in reached]
    return set.intersection(*sets) if sets else set()


def rank(
    scores: Mapping[str, float],
    *,
    in_all: Collection[str] = (),
    located: Collection[str] = (),
    innermost: Mapping[str, float] = MappingProxyType({}),
    mentioned: Collection[str] = (),
) -> list[str]:
    """Functions ("path::qualname"), most suspicious first; equal ones by name.

    in_all      functions that every failing test reaches: these come first (a single fault)
    located     functions on the traceback of a failing test: worth a quarter of a score
    innermost   share of the tracebacks that end in a function: all of them are worth a quarter
    mentioned   names (last part of the qualified name) in a failing test: worth a tenth

    The weights were chosen on 300 procedural bugs, 60 of each of cachetools, toolz, sqlparse,
    mistune and parso: the function to repair was among the first 1, 2, 3 for 57, 68, 72 % of them
    (without `innermost`: 50, 62, 69 %).
    """

    def key(function: str) -> tuple[float, str]:
        name = function.rsplit("::", 1)[-1].rsplit(".", 1)[-1]
        extra = 0.25 * (function in located) + 0.25 * innermost.get(function, 0.0)
        extra += 0.1 * (name in mentioned) + (function in in_all)
        return -(scores[function] + extra), function

    return sorted(scores, key=key)


def by_words(issue: str, texts: Mapping[str, str]) -> list[str]:
    """Functions by the words that their text shares with an issue, those of few functions counting
    more (log of functions / functions with the word); equal ones by name.

    Example: "round_to is wrong" and two functions, one of them with the word round_to: log 2.
    """
    held = {name: _words(text) for name, text in texts.items()}
    number = Counter(word for words in held.values() for word in words)
    asked = _words(issue)
    scores = {
        name: math.fsum(math.log(len(texts) / number[word]) for word in sorted(asked & words))
        for name, words in held.items()
    }
    return sorted(scores, key=lambda name: (-scores[name], name))


def _words(text: str) -> set[str]:
    """Names in a text, and their parts; short ones tell nothing."""
    names = set(re.findall(r"[A-Za-z_]\w*", text))
    parts = {part for name in names for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    return {word.lower() for word in names | parts if len(word) > 2}


def suspect_lines(listing: Listing, spectrum: Spectrum, max_lines: int) -> list[int]:
    """Numbers of the listed lines that a single fault is likeliest in, most suspicious first, of
    equal ones the first; those that no failing test runs are none.

    Of 111 held-out bugs of boltons and tabulate, whose functions have 10.5 lines on average, five
    lines so chosen of two listed functions hold the line to repair for 87, two for 63.
    """
    scores = [
        (-spectrum.suspicion(line.path, line.row + 1), number)
        for number, line in enumerate(listing.lines, 1)
    ]
    return [number for score, number in sorted(scores) if score < 0][:max_lines]
