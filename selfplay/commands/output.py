"""What commands print: one JSON document on stdout, or a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_json(document: Any) -> None:
    """One JSON document, the only thing on stdout."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=None) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on stdout."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
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
    return str(value)
