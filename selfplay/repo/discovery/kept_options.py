"""Which of a project's own `addopts` hold for our runs: all but those that steer how a run is
shown, reported, spread over processes, cut short or put in another order, and paths."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

_FLAGS = re.compile(
    "--(" + "|".join((
        "quiet|verbose|exitfirst|pdb|trace|lf|last-failed|ff|failed-first|nf|new-first|sw|stepwise",
        "sw-skip|stepwise-skip|sw-reset|stepwise-reset|cache-clear|collect-only|co|setup-.*",
        "no-summary|no-header|showlocals|no-showlocals|full-trace|disable-(pytest-)?warnings",
        "no-fold-skipped|fold-skipped|force-short-summary|fixtures|funcargs|markers|help|version",
        "no-?cov.*|cov|boxed|forked|looponfail|self-contained-html|clean-alluredir|json-report",
        "random-order|flake-finder|force-flaky|no-flaky-report|flake8|mypy|black|isort|pylint",
        "force-sugar|old-summary|ruff|ruff-format|pycodestyle|pydocstyle|codestyle|checkdocs|pyargs|strict|strict-config",
        "snapshot-update|update-snapshots|force-regen|regen-all|instafail|codspeed|nbmake",
        "benchmark-(only|skip|enable|disable|disable-gc|json-compact|verbose|quiet|autosave)",
        "hypothesis-(show-statistics|explain)|keep-duplicates|testmon.*|picked",
    )) + ")"
)  # fmt: skip
_WITH_VALUE = re.compile(
    "--(" + "|".join((
        "maxfail|pdbcls|lfnf|last-failed-no-failures|durations|durations-min|tb|color|verbosity",
        "code-highlight|show-capture|capture|cache-show|console-output-style|xfail-tb|log-cli.*",
        "log-file.*|junit-?xml|junit-?prefix|report-log|html|css|json-report.*|pastebin|alluredir",
        "resultlog|csv.*|md-report.*|nunit-?xml|cucumber-?json|metadata.*|cov-.*|numprocesses",
        "maxprocesses|max-worker-restart|dist|tx|px|rsync.*|testrunuid|randomly-.*|random-order-.*",
        "reruns|reruns-delay|only-rerun|rerun-except|retries|retry-delay|count|repeat.*|timeout.*",
        "session-timeout|max-runs|min-passes|flake-runs|mypy-.*|flake8-.*|benchmark-.*",
        "hypothesis-(profile|seed|verbosity)|inline-snapshot|config-file|rootdir|basetemp",
        "splits|group|splitting-algorithm|store-durations|durations-path|debug",
    )) + ")"
)  # fmt: skip
_VALUE_KEPT = re.compile(
    "--(import-mode|ignore|ignore-glob|deselect|confcutdir|doctest-glob|doctest-report|log-level"
    "|doctest-encoding|pythonwarnings|override-ini|asyncio-mode|ds|dc|log-format|log-date-format)"
)
_PLUGINS = re.compile(
    r"no:(cacheprovider|terminal|terminalreporter|junitxml|main|runner|python|reports|skipping)"
    r"|(pytest_?)?(cov|xdist|randomly|random_order|reverse|sugar|rerunfailures|repeat|timeout"
    r"|retry|html|testmon|instafail|pretty|rich|reportlog|metadata)(\..*)?"
)
_SETTINGS = re.compile(
    r"(addopts|log_cli.*|log_file.*|console_output_style|cache_dir|junit_.*|verbosity_.*"
    r"|strict|strict_config|required_plugins|minversion|timeout.*)="
)
_SHORT_VALUE = "ckmpnroWD"
"""Letters that take a value; of these `_SHORT_KEPT` may stay. Other small letters are flags."""
_SHORT_KEPT = "kmpoW"
STRICT = re.compile(r"-W.*|--pythonwarnings.*|--strict-markers")
"""Options that make a run fail for what is not a fault of the code."""


def split_options(
    words: Sequence[str], is_path: Callable[[str], bool]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(options that hold, what is left out) of a project's addopts.

    An option stays beside its value, as one word where that has two. A word behind an option that
    is not known here is its value, unless it is a path of the tree.
    """
    kept: list[str] = []
    left_out: list[str] = []
    for option, stays in _options(list(words), is_path):
        (kept if stays else left_out).append(option)
    return tuple(kept), tuple(left_out)


def _options(words: list[str], is_path: Callable[[str], bool]) -> Iterator[tuple[str, bool]]:
    while words:
        word = words.pop(0)
        if word == "--":
            yield from ((rest, False) for rest in words)
            return
        if word.startswith("--"):
            yield _long(word, words, is_path)
        elif word.startswith("-") and len(word) > 1:
            yield from _short(word[1:], words, is_path)
        else:
            yield word, False  # a path: our scripts name their own


def _long(word: str, words: list[str], is_path: Callable[[str], bool]) -> tuple[str, bool]:
    name, given, value = word.partition("=")
    if _FLAGS.fullmatch(name):
        return word, False
    wants_value = bool(_WITH_VALUE.fullmatch(name) or _VALUE_KEPT.fullmatch(name))
    plain = bool(words) and not words[0].startswith("-")
    if not given and words and (wants_value or (plain and not is_path(words[0]))):
        value = words.pop(0)
        word = f"{name}={value}"
    if name == "--override-ini":
        return word, not _SETTINGS.match(value)
    return word, not _WITH_VALUE.fullmatch(name)


def _short(
    letters: str, words: list[str], is_path: Callable[[str], bool]
) -> Iterator[tuple[str, bool]]:
    """Options of one letter, several of which may stand in one word."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in _SHORT_VALUE and not letter.isupper():
            yield f"-{letter}", False
            continue
        value = letters
        if not value and words and (letter in _SHORT_VALUE or not is_path(words[0])):
            value = words.pop(0)
        value = value.removeprefix("=") if letter != "k" else value
        stays = letter in _SHORT_KEPT or letter.isupper()
        if letter == "p":
            stays = not _PLUGINS.fullmatch(value)
        elif letter == "o":
            stays = not _SETTINGS.match(value)
        yield f"-{letter}{value}", stays
        return


def without_refused(options: Sequence[str], complaint: str) -> tuple[str, ...]:
    """The options without those that pytest says it does not know or cannot load.

    Equal to `options` where the complaint is about something else.
    """
    unknown: set[str] = set()
    for line in re.findall(r"unrecognized arguments: (.*)", complaint):
        unknown |= set(line.split())
    plugins = set(re.findall(r'Error importing plugin "([^"]+)"', complaint))
    plugins |= set(re.findall(r"No module named '([^']+)'", complaint))

    def refused(option: str) -> bool:
        name = option.partition("=")[0]
        if option.startswith("-p"):
            return option[2:] in plugins
        return option in unknown or name in unknown

    return tuple(option for option in options if not refused(option))
