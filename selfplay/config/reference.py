"""docs/configuration.md, made from the dataclasses: every key, its type, default and meaning.

    python -m selfplay.config.reference docs/configuration.md

The meaning of a key is the text below its field; a field without one is refused.
"""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import MISSING as NONE
from dataclasses import Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from selfplay.config import commands, datasets

HEAD = """# Configuration

Written by `python -m selfplay.config.reference docs/configuration.md` from the dataclasses in
`selfplay/config/`; a test holds the two equal. Change the dataclass, not this page.

`selfplay COMMAND key=value part.key=value ...`: each command composes `conf/COMMAND.yaml`, which
may choose files of `conf/PART/` and set other values than the defaults below, with the keys of the
command line. `part=NAME` takes `conf/PART/NAME.yaml`. A key that is not listed here is an error.
"""
COMMANDS: dict[str, type[Any]] = {
    "train": commands.TrainConfig,
    "inject": commands.InjectConfig,
    "evaluate": commands.EvaluateConfig,
    "warmstart": commands.WarmstartConfig,
    "validate": commands.ValidateConfig,
    "grade": commands.GradeConfig,
    "repos prepare": commands.RepoConfig,
    "compare": commands.CompareConfig,
    "mine": datasets.MineConfig,
    "suite_make": datasets.SuiteMakeConfig,
    "traces": datasets.TracesConfig,
    "serve": commands.ServeConfig,
    "export, corpus verify": datasets.ExportConfig,
    "episode show": commands.EpisodeConfig,
    "report": commands.ReportConfig,
    "doctor": commands.DoctorConfig,
}


def reference() -> str:
    """The page."""
    parts: dict[str, type[Any]] = {}
    for command in COMMANDS.values():
        _collect(command, "", parts)
    text = [HEAD, "## Commands\n"]
    for name, command in COMMANDS.items():
        text.append(f"### selfplay {name}\n\n{_about(command)}\n")
        text.append(_table(command, ""))
        used = [f"[`{item.name}`](#{item.name})" for item in _own_first(command) if _part(item)]
        text.append(f"Parts: {', '.join(used)}.\n" if used else "")
    text.append("## Parts\n")
    for prefix, part in parts.items():
        text.append(f"### {prefix}\n\n{_about(part)}\n")
        text.append(_table(part, f"{prefix}."))
    return "\n".join(block for block in text if block)


def keys() -> dict[str, type[Any]]:
    """{dotted name: class that holds it} of every key of every command."""
    parts: dict[str, type[Any]] = {}
    for command in COMMANDS.values():
        _collect(command, "", parts)
    holders = [("", command) for command in COMMANDS.values()]
    holders += [(f"{prefix}.", part) for prefix, part in parts.items()]
    return {f"{prefix}{f.name}": holder for prefix, holder in holders for f in fields(holder)}


def _collect(config: type[Any], prefix: str, parts: dict[str, type[Any]]) -> None:
    """{dotted name: class} of everything nested in a configuration, in order."""
    for item in fields(config):
        part = _part(item)
        if part is not None:
            name = f"{prefix}{item.name}"
            parts.setdefault(name, part)
            _collect(part, f"{name}.", parts)


def _part(item: Field[Any]) -> type[Any] | None:
    """The class of a nested part, None for a value."""
    factory: Any = item.default_factory
    return factory if isinstance(factory, type) and is_dataclass(factory) else None


def _about(config: type[Any]) -> str:
    return inspect.cleandoc(config.__doc__ or "")


def _own_first(config: type[Any]) -> list[Field[Any]]:
    """Fields, those that a class adds before those of its bases."""
    order = [name for base in config.__mro__ for name in inspect.get_annotations(base)]
    return sorted(fields(config), key=lambda item: order.index(item.name))


def _table(config: type[Any], prefix: str) -> str:
    meanings = _meanings(config)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for item in _own_first(config):
        if _part(item):
            continue
        assert item.name in meanings, f"{config.__name__}.{item.name}: say what it means"
        kind = str(item.type).replace(" | None", " or null").replace("Any", "any")
        rows.append(
            f"| `{prefix}{item.name}` | {kind} | {_default(item)} | {meanings[item.name]} |"
        )
    return "\n".join(rows) + "\n"


def _default(item: Field[Any]) -> str:
    factory: Any = item.default_factory
    value = item.default if factory is NONE else factory()
    if value == MISSING:
        return "must be given"
    words = {True: "true", False: "false", None: "null"}
    return f"`{words[value] if isinstance(value, bool | None) else value}`"


def _meanings(config: type[Any]) -> dict[str, str]:
    """{field: the text below it}, those of base classes included; the nearest class counts."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if is_dataclass(base):
            found |= _documented(base)
    return found


@cache
def _documented(config: type[Any]) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(config)).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            assert isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant)
            found[field.target.id] = " ".join(inspect.cleandoc(str(text.value.value)).split())
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
