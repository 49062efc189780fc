"""The three forms of what was recorded (docs/traces.md): frames for the prediction of the next one
(as code world models learn from, arXiv 2510.02387), questions about inputs and outputs (CRUXEval,
arXiv 2401.03065), a compact scratchpad of one function (execution tuning, arXiv 2503.05703).

Everything that is equal but for the test which it came from is kept once.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from selfplay.repo.prepare import PreparedRepo
from selfplay.traces.asking import tells_its_value
from selfplay.traces.recordings import Event, Question, TestRecording

Row = dict[str, Any]
RETURNED = "return"


def trace_rows(prepared: PreparedRepo, tests: Iterable[TestRecording]) -> Iterator[Row]:
    """One row for each call of a test into the repository, with its frames."""
    name = prepared.name
    seen: set[str] = set()
    for test in tests:
        for sample in test.samples:
            frames = [_frame(prepared, test.places, event) for event in sample]
            key = _key(name, frames)
            if key in seen:
                continue
            seen.add(key)
            head = frames[0]
            yield {
                "id": f"trace-{key}",
                "repo": name,
                "test": test.test,
                **{key: head[key] for key in ("path", "function", "line")},
                "frames": frames,
            }


def scratchpad_rows(prepared: PreparedRepo, tests: Iterable[TestRecording]) -> Iterator[Row]:
    """One row for each call of a test that returned: the function's text, and line by line what
    changed in its own frame; what it calls is stepped over."""
    code_of = _code_of(prepared)
    seen: set[str] = set()
    for test in tests:
        for sample in test.samples:
            path, function = test.places[sample[0][1]]
            first, code = code_of(path, function)
            if sample[0][0] != "call" or sample[-1][0] != RETURNED or not code:
                continue
            own = list(_own_events(sample))
            row = {
                "path": path,
                "function": function,
                "line": first,
                "code": code,
                "input": _told(sample[0][3]),
                "steps": [_step(event) for event in own[1:-1]],
                "output": _told(sample[-1][3]),
            }
            key = _key(prepared.name, row)
            if key not in seen:
                seen.add(key)
                yield {"id": f"pad-{key}", "repo": prepared.name, "test": test.test, **row}


def question_rows(prepared: PreparedRepo, questions: Iterable[Question]) -> Iterator[Row]:
    """One row for each question, in both directions. `code` is the function's text; what it stands
    on is what `import` loads. One that a comment in it answers is left out."""
    code_of = _code_of(prepared)
    for q in questions:
        call = f"{q.function}({{}})"
        code = code_of(q.path, q.function)[1]
        if tells_its_value(code, q.function, q.output):
            continue
        row = {
            "path": q.path,
            "function": q.function,
            "import": f"from {q.module} import {q.function}",
            "code": code,
            "input": q.input,
            "output": q.output,
            "output_prediction": f"assert {call.format(q.input)} == ??",
            "input_prediction": f"assert {call.format('??')} == {q.output}",
        }
        yield {"id": f"question-{_key(prepared.name, row)}", "repo": prepared.name, **row}


def distinct_questions(tests: Iterable[TestRecording]) -> list[Question]:
    """In the order in which they were met, each once; of one call with two values neither."""
    outputs: dict[tuple[str, str, str, str], str | None] = {}
    for test in tests:
        for q in test.questions:
            call = (q.path, q.module, q.function, q.input)
            outputs[call] = q.output if outputs.get(call, q.output) == q.output else None
    return [
        Question(path=path, module=module, function=function, input=given, output=output)
        for (path, module, function, given), output in outputs.items()
        if output is not None
    ]


def _frame(prepared: PreparedRepo, places: Sequence[tuple[str, str]], event: Event) -> Row:
    kind, place, line, data, depth = event
    path, function = places[place]
    row: Row = {
        "event": kind,
        "depth": depth,
        "path": path,
        "function": function,
        "line": line,
        "source": _source_line(prepared, path, line),
    }
    if isinstance(data, dict):
        return {**row, "locals": data}
    return {**row, "exception" if kind == "exception" else "value": data}


def _own_events(sample: Sequence[Event]) -> Iterator[Event]:
    """Those of the first frame."""
    return (event for event in sample if event[4] == 0)


def _told(data: dict[str, str | None] | str) -> str:
    """Changed locals in one line."""
    if isinstance(data, str):
        return data
    return "; ".join(f"{name} = {value or '<gone>'}" for name, value in data.items())


def _step(event: Event) -> str:
    kind, _, line, data, _ = event
    what = f"{kind} " if kind not in ("line", "call") else ""
    return f"L{line}: {what}{_told(data)}".rstrip()


def _source_line(prepared: PreparedRepo, path: str, line: int) -> str:
    lines = _lines(prepared.source(path))
    return lines[line - 1].strip() if line <= len(lines) else ""


@lru_cache(maxsize=64)
def _lines(source: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", _as_python_reads(source))  # as Python counts them


def _as_python_reads(source: str) -> str:
    """A file's text (surrogateescape) in the encoding that its head states: in any other it is
    another program."""
    content = source.encode("utf-8", "surrogateescape")
    try:
        return content.decode(tokenize.detect_encoding(io.BytesIO(content).readline)[0])
    except (SyntaxError, UnicodeDecodeError):
        return source


def _code_of(prepared: PreparedRepo) -> Callable[[str, str], tuple[int, str]]:
    """(path, qualified name) -> the function's first line and text, "" where it is not known."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for info in prepared.functions:
        key = (info.path, info.qualname)
        lines = _lines(prepared.source(info.path))[info.start_line - 1 : info.end_line]
        found[key] = (info.start_line, textwrap.dedent("\n".join(lines)))
    return lambda path, name: found.get((path, name), (0, ""))


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
