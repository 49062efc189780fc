"""What commands print: one JSON document on stdout, or a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(document: Any) -> None:
    """One JSON document, the only thing on stdout."""
    text = json.dumps(document, ensure_ascii=False, indent=None)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # bytes that are not UTF-8 travel as lone surrogates
        text = json.dumps(document, indent=None)
    sys.stdout.write(text + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout. Titles and cells are plain text: names of tests hold brackets."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console(file=sys.stdout).print(table)


def say(message: str) -> None:
    """One line for a person, on stderr."""
    sys.stderr.write(f"selfplay: {message}\n")
    sys.stderr.flush()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return plain(str(value))


def plain(text: str) -> str:
    """The text without what steers a terminal or cannot be written to one: `\\x1b` and the like."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
