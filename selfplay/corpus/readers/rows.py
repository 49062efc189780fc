"""The tasks of a file or folder as JSON objects, whatever holds them.

JSON Lines, one JSON array, Parquet files as the package `datasets` lays them out, and Harbor's task
folders. What a field means is told by `foreign.py`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfplay.corpus.readers.harbor import harbor_folders, harbor_line
from selfplay.errors import UserError

Rows = Iterator[tuple[str, Any]]
"""(where it stands, for errors; the object)."""


def rows_of(path: Path) -> Rows:
    """Every task. Raises `UserError` that names file, and line or row where there is one."""
    if path.is_dir():
        yield from _rows_of_folder(path)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    else:
        yield from _json(path)


def _rows_of_folder(path: Path) -> Rows:
    tasks = harbor_folders(path)
    parquet = [] if tasks else sorted(path.rglob("*.parquet"))
    if not tasks and not parquet:
        arrow = any(path.rglob("*.arrow"))
        raise UserError(
            f"suite={path}: a directory without corpus.sqlite is no run directory, and there is no "
            "suite.jsonl, *.parquet or task.toml below it"
            + ("; write *.arrow anew with to_parquet() of the package datasets" if arrow else "")
        )
    for folder in tasks:
        yield str(folder), harbor_line(folder)
    for file in parquet:
        yield from _parquet(file)


def _json(path: Path) -> Rows:
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows begins a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite={path}: cannot be read ({error})") from None
    if path.suffix == ".json" and text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UserError(f"{path}: not a JSON array ({error})") from None
        for number, document in enumerate(found):
            yield f"{path}[{number}]", document
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not a JSON object ({error})") from None
        yield f"{path}:{number}", document


def _parquet(path: Path) -> Rows:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            f"suite={path}: Parquet is read by pyarrow: pip install 'selfplay[export]'"
        ) from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise UserError(f"{path}: cannot be read as Parquet ({error})") from None
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", {name: cell for name, cell in row.items() if cell is not None}
