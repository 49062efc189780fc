"""Questions about outputs as a suite: `questions.jsonl` of `selfplay traces`, or CRUXEval's lines.

A line has `id`, `code`, `input` and `output`; `function` where it is not CRUXEval's `f`, `repo` and
`path` where they are known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.records import from_plain
from selfplay.traces.asking import output_question

FILE = "questions.jsonl"
OTHERS = {"frames": "frames of traces", "steps": "scratchpads"}
"""Keys of the other two datasets of `selfplay traces`, and what those hold."""
LOOKED_AT = 20
REMEDY = "mend or remove that line, or make the file anew with selfplay traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputQuestion:
    """What does this call give?"""

    id: str
    code: str
    input: str
    output: str
    function: str = "f"
    repo: str = ""
    path: str = ""

    @property
    def place(self) -> str:
        """The function that is asked about; questions of one place are alike."""
        return f"{self.repo}/{self.path}::{self.function}"

    @property
    def text(self) -> str:
        """What is asked."""
        return output_question(self.code, self.function, self.input)


def questions_file(path: Path) -> Path | None:
    """The file of questions that a path means, None where it holds none.

    Raises `UserError` for another dataset of `selfplay traces`.
    """
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        with file.open("rb") as stream:
            lines = list(islice(stream, LOOKED_AT))
    except OSError:
        return None
    for line in lines:
        try:
            keys = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(keys, Mapping) or "patch" in keys:
            continue
        for key, held in OTHERS.items():
            if key in keys and "repo" in keys:
                raise UserError(f"suite={path}: holds {held}, no questions; name {FILE} beside it")
        if len({"code", "input", "output"} & keys.keys()) > 1:
            return file
    return None


def read_questions(file: Path) -> list[OutputQuestion]:
    """Every question. Raises `UserError` that names file, line, field and remedy."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"suite={file}: cannot be read ({error})") from None
    found: dict[str, tuple[int, OutputQuestion]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            question = _question(line)
        except UserError as error:
            raise UserError(f"{file}:{number}: {error}; {REMEDY}") from None
        before, _ = found.setdefault(question.id, (number, question))
        if before != number:
            raise UserError(f"{file}:{number}: id: {question.id!r} is line {before}'s; {REMEDY}")
    return [question for _, question in found.values()]


def _question(line: str) -> OutputQuestion:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not a JSON object ({error})") from None
    if not isinstance(document, dict):
        raise UserError("not a JSON object")
    question = from_plain(OutputQuestion, document)
    for name in ("id", "code", "output", "function"):
        if not getattr(question, name).strip():
            raise UserError(f"{name}: is empty")
    return question
