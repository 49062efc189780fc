"""Requirement files and tox.ini, as texts by path: what they list, and what they include."""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from selfplay.repo.dependencies.requirements import Declaration

REQUIREMENT_FILE = re.compile(
    r"(.*[/_.-])?requirements?([/_.-].*)?\.(txt|in)|(.*/)?(test|dev)-?deps\.txt"
)
FOLDERS = ("", "requirements", "test", "tests", "testing", "dev", "ci")
"""Where requirement files lie."""
COMMENT = re.compile(r"(^|\s)#.*$")
OPTION = re.compile(r"\s+--(hash|config-settings|global-option)\b.*")


def requirement_lines(text: str) -> list[str]:
    """Lines of a requirements file: comments, continuations and hashes taken off."""
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [OPTION.sub("", line) for line in lines if line]


def read_ini(text: str) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser(strict=False, allow_no_value=False)
    try:
        config.read_string(text)
    except configparser.Error:
        return configparser.RawConfigParser()
    return config


def from_tox(text: str, files: Mapping[str, str]) -> Declaration:
    """`deps` of [testenv]: plain lines and -r FILE; what has a factor ("py39: x") or a substitution
    is left out."""
    config = read_ini(text)
    lines: list[str] = []
    for line in requirement_lines(config.get("testenv", "deps", fallback="")):
        if "{" not in line and not re.match(r"[\w,!.-]+:\s", line):
            lines += _resolve(line, "", files, ())
    return Declaration(groups={"test": tuple(lines)})


def from_files(files: Mapping[str, str], *, plain: bool = False) -> Declaration:
    """Requirement files by path. What is called after tests or development belongs to that group;
    with `plain`, requirements.txt itself counts as what is needed at run time."""
    groups: dict[str, list[str]] = {}
    runtime: list[str] = []
    for path in files:
        words = set(re.split(r"[^a-z]+", re.sub(r"\.(txt|in)$", "", path.lower())))
        lines = [
            ln for line in requirement_lines(files[path]) for ln in _resolve(line, path, files, ())
        ]
        if any(word.startswith(("test", "pytest", "unittest")) for word in words):
            groups.setdefault("test", []).extend(lines)
        elif any(word.startswith("dev") for word in words):
            groups.setdefault("dev", []).extend(lines)
        elif plain and path == "requirements.txt":
            runtime += lines
    return Declaration(
        runtime=tuple(runtime), groups={name: tuple(lines) for name, lines in groups.items()}
    )


def _resolve(line: str, base: str, files: Mapping[str, str], above: tuple[str, ...]) -> list[str]:
    """A line, or those of the known file that `-r FILE` names, relative to where it stands."""
    option = re.fullmatch(r"(?:-r|--requirement)[\s=]*(\S+)", line)
    if option is None:
        return [line]
    path = (PurePosixPath(base).parent / option[1]).as_posix()
    if path in above or path not in files:
        return []
    inner = requirement_lines(files[path])
    return [found for item in inner for found in _resolve(item, path, files, (*above, path))]
