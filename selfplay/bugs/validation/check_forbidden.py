"""The `forbidden_content` check: what an injector may not put into the files of an artifact.

Harness-written scripts and parsers are recognised by their text and pass. Changes of code are
compared with the original file, so that only what the artifact adds can be held against it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from selfplay.bugs.code_signals.chance import added_source
from selfplay.bugs.code_signals.signals import new_signals
from selfplay.bugs.patches.diffs import parse_patch
from selfplay.bugs.patches.layers import read_file
from selfplay.bugs.test_runs.scripts import parser_runner, script_runner
from selfplay.repo.languages.python_source import parse
from selfplay.types import BugArtifact, Layer

Finding = tuple[str, str]
"""(reason code, detail)"""

IN_TESTS = ("randomness", "clock", "network", "process", "git", "source_reading", "dynamic")
IN_BUG = ("dynamic", "runner", "randomness", "network", "process")
PARSER_IMPORTS = frozenset(
    {
        *("sys", "re", "json", "collections", "typing", "itertools", "functools", "string", "io"),
        *("xml", "html", "math", "argparse", "enum", "dataclasses", "__future__", "textwrap"),
        *("operator", "abc", "contextlib", "types", "unicodedata", "fileinput"),
    }
)
PARSER_CALLS = frozenset({"exec", "eval", "compile", "__import__", "open", "globals", "vars"})
_SCRIPT_WORDS: dict[str, str] = {
    "network": r"\b(curl|wget|nc|ncat|ssh|scp|telnet|ping|pip3?\s+install|npm\s+i(nstall)?)\b",
    "git": r"(^|[\s;&|(`])git\s|\.git\b",
    "randomness": r"\$\{?RANDOM\b|/dev/u?random|\bshuf\b|\bmktemp\b.*\bif\b|\buuidgen\b",
    "clock": r"(^|[\s;&|(`])date(\s|\)|`|$)|\$\{?(EPOCHSECONDS|SECONDS)\b",
    "source_reading": r"\b(sha\d+sum|md5sum|cksum|b2sum)\b"
    r"|\b(cat|grep|sed|awk|head|tail|diff|cmp)\b[^|]*\.(py|c|js|ts|go|rs|rb|java|pl|pm|sh)\b",
    "result_writing": r"(^|[\s;&|(])(echo|printf)\b.*\b(passed|PASSED|ok|PASS|failed|FAILED)\b",
}
_HINT = re.compile(
    r"\b(bug|buggy|sabotaged?|mutat(ed|ion)|(inject|introduc)(ed|es|ing)? (a |an |the )?(bug|fault"
    r"|error|defect)|(intentional|deliberate)(ly)? (broken|wrong|bug|error|fault)|originally"
    r"|should have been|used to be|off[- ]by[- ]one|the (fix|correct (value|code|version)) is)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:^|\s)(?:#|//)\s?(?P<text>.*)$")


def forbidden_content(
    tree: Path, artifact: BugArtifact, bug: Layer, weakening: Layer
) -> Finding | None:
    """The first thing found in script, parser, weakening and bug patch, or None.

    `bug` and `weakening` are the layers of the two patches on the original tree.
    """
    return (
        _script(artifact.test_script)
        or _parser(artifact.test_parser)
        or _new_code(tree, weakening, IN_TESTS, "tests")
        or _commented_out(artifact.weakening_patch, "tests_commented_out")
        or _new_code(tree, bug, IN_BUG, "bug")
        or _chance(tree, bug)
        or _commented_out(artifact.bug_patch, "original_commented_out")
        or _hints(artifact.bug_patch)
    )


def _script(script: str) -> Finding | None:
    if script_runner(script) is not None:
        return None
    for line in script.split("\n"):
        if line.lstrip().startswith("#"):
            continue
        for category, pattern in _SCRIPT_WORDS.items():
            if re.search(pattern, line):
                return f"script_{category}", f"test_script.sh: {line.strip()[:120]}"
    return None


def _parser(parser: str) -> Finding | None:
    if parser_runner(parser) is not None:
        return None
    module = parse(parser)
    if module is None:
        return "parser_syntax", "test_parser.py: is not valid Python"
    for node in ast.walk(module):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        for name in names:
            if name.partition(".")[0] not in PARSER_IMPORTS:
                return "parser_import", f"test_parser.py: imports {name}; it may read stdin alone"
        if isinstance(node, ast.Name) and node.id in PARSER_CALLS:
            return "parser_call", f"test_parser.py: uses {node.id}; it may read stdin alone"
        if isinstance(node, ast.Attribute) and node.attr.startswith("__"):
            return "parser_call", f"test_parser.py: uses {node.attr}"
    return None


def _new_code(tree: Path, layer: Layer, categories: tuple[str, ...], where: str) -> Finding | None:
    for path, change in layer.items():
        if change.content is None:
            continue
        before = (read_file(tree, {}, path) or b"").decode("utf-8", "surrogateescape")
        after = change.content.decode("utf-8", "surrogateescape")
        for found in new_signals(path, after, [before], categories):
            category, _, token = found.partition(": ")
            return f"{where}_{category}", f"{path}: adds {token}"
    return None


def _chance(tree: Path, bug: Layer) -> Finding | None:
    """A source of chance that the bug adds: its verdict would be another one in the next run."""

    def text(content: bytes | None) -> str:
        return (content or b"").decode("utf-8", "surrogateescape")

    found = added_source(
        [(path, text(read_file(tree, {}, path))) for path in bug],
        [(path, text(change.content)) for path, change in bug.items()],
    )
    return (f"bug_{found.kind}", f"line {found.line} adds {found.name}") if found else None


def _commented_out(patch: str, reason: str) -> Finding | None:
    """Removed code that comes back as a comment."""
    for file in parse_patch(patch):
        removed = {_squeeze(line) for line in file.removed}
        kept = {line.strip() for line in file.removed}
        for line in file.added:
            match = _COMMENT.search(line)
            if match is None or line.strip() in kept:
                continue
            text = _squeeze(match["text"])
            if len(text) > 3 and text in removed and not text.startswith(("#", "//")):
                return reason, f"{file.paths[-1]}: {line.strip()[:120]}"
    return None


def _hints(patch: str) -> Finding | None:
    """New comments that speak of the bug."""
    for file in parse_patch(patch):
        kept = {_comment_text(line) for line in file.removed}
        for line in file.added:
            text = _comment_text(line)
            if text and text not in kept and _HINT.search(text):
                return "bug_hint", f"{file.paths[-1]}: {line.strip()[:120]}"
    return None


def _comment_text(line: str) -> str:
    match = _COMMENT.search(line)
    return match["text"].strip() if match else ""


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)
