"""The lines of an export once more as `parquet/data/train-00000-of-00001.parquet`.

Objects inside a line are JSON text, since their keys differ from line to line; the readers of
suites take them so (`corpus/readers/`).
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.export.parquet.card import dataset_card
from selfplay.files import read_json_lines, write_atomic

FOLDER = "parquet"
FILE = "data/train-00000-of-00001.parquet"


def write_parquet(out: Path, lines: str, environments: Mapping[str, Mapping[str, Any]]) -> int:
    """Write `out/parquet/` from the file `out/lines`; how many lines hold bytes that are not UTF-8
    and are left out, as Arrow's texts cannot hold them. Raises `UserError` without pyarrow."""
    arrow, parquet = pyarrow()
    rows = [plain_row(line) for _, line in read_json_lines(out / lines)]
    told = [row for row in rows if is_utf8(row)]
    columns = {name: [row.get(name) for row in told] for row in told[:1] for name in row}
    table = arrow.table({name: column(arrow, cells) for name, cells in columns.items()})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    (out / FOLDER / "data").mkdir(parents=True, exist_ok=True)
    write_atomic(out / FOLDER / FILE, buffer.getvalue())
    features = {field.name: str(field.type) for field in table.schema}
    card = dataset_card(lines, buffer.getvalue(), len(told), features, environments)
    write_atomic(out / FOLDER / "README.md", card.encode())
    return len(rows) - len(told)


def pyarrow() -> tuple[Any, Any]:
    """The packages `pyarrow` and `pyarrow.parquet`. Raises `UserError`."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError("parquet=true: needs pyarrow: pip install 'selfplay[export]'") from None


def plain_row(line: Mapping[str, Any]) -> dict[str, Any]:
    """Objects as JSON text; everything else as it is."""
    return {k: json.dumps(v, sort_keys=True) if isinstance(v, dict) else v for k, v in line.items()}


def column(arrow: Any, cells: Sequence[Any]) -> Any:
    """A column; lists of which none has an element are lists of texts."""
    empty = all(not cell for cell in cells) and any(isinstance(cell, list) for cell in cells)
    return arrow.array(cells, type=arrow.list_(arrow.string()) if empty else None)


def is_utf8(value: Any) -> bool:
    """Whether no text in it stands for other bytes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
