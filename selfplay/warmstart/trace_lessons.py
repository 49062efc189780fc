"""Lessons from the datasets of `selfplay traces` (docs/traces.md): what comes of a line that is
about to run (code world models, arXiv 2510.02387), what a call gives, and a call's scratchpad
(execution tuning, arXiv 2503.05703).

The three take turns, and so do the functions of each, so that neither long loops nor much tested
functions crowd out the rest.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import read_json_lines
from selfplay.sampling import Tokenizer
from selfplay.seeds import derive_rng
from selfplay.traces.asking import PREDICT, code_lines, output_question
from selfplay.warmstart.examples import SupervisedExample, make_example

KINDS = ("traces", "questions", "scratchpad")
NEXT = "Trace Python code. Say what comes of the last line: what changed, or how it ended."
TRACE = 'Trace the call: "N| name = value" before line N runs, then "= " and what it gives.'
WINDOW = 6
"""Events of the frame that are shown before the line that is asked about."""
ODD = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""What a row that is none raises."""
Told = tuple[str, str, str, str]
"""Function ("REPO/PATH::FUNCTION"), system prompt, question, answer."""
Row = Mapping[str, Any]


def trace_examples(
    folder: Path,
    tokenizer: Tokenizer,
    seed: int,
    *,
    max_prompt_tokens: int = 320,
    max_answer_tokens: int = 160,
) -> Iterator[tuple[str, str, SupervisedExample]]:
    """(kind, "REPO/PATH::FUNCTION", example), no question twice. Ends when all were told.

    Raises `UserError` for a folder that `selfplay traces` did not write.
    """
    waiting = {kind: in_turn(read_told(folder, kind, seed), seed, kind) for kind in KINDS}
    asked: set[tuple[int, ...]] = set()
    while waiting:
        for kind in list(waiting):
            for function, system, question, answer in waiting[kind]:
                prompt_ids = tokenizer.render(system, question)
                if len(prompt_ids) > max_prompt_tokens or prompt_ids in asked:
                    continue
                example = make_example("trace", tokenizer, prompt_ids, answer)
                if len(example.answer_ids) <= max_answer_tokens:
                    asked.add(prompt_ids)
                    yield kind, function, example
                    break
            else:
                del waiting[kind]


def repos_of(folder: Path) -> tuple[set[str], set[str]]:
    """Names of the repositories and paths of the files that the datasets tell of."""
    repos: set[str] = set()
    paths: set[str] = set()
    for kind in KINDS:
        file = folder / f"{kind}.jsonl"
        for number, row in read_json_lines(file):
            try:
                repos.add(row["repo"])
                paths.update(frame["path"] for frame in row.get("frames", [row]))
            except ODD as error:
                raise _odd(file, number, error) from None
    return repos, paths


def read_told(folder: Path, kind: str, seed: int) -> list[Told]:
    """What the rows of a dataset tell, in their order."""
    file = folder / f"{kind}.jsonl"
    if not file.is_file():
        raise UserError(f"trace_data={folder}: has no {file.name}; make it with selfplay traces")
    found: list[Told] = []
    for number, row in read_json_lines(file):
        try:
            told = TELL[kind](row, derive_rng(seed, "trace lessons", row["id"]))
        except ODD as error:
            raise _odd(file, number, error) from None
        if told is not None:
            found.append(told)
    return found


def in_turn(told: Sequence[Told], seed: int, kind: str) -> Iterator[Told]:
    """One of each function after the other, drawn."""
    rng = derive_rng(seed, "trace lessons", kind)
    by_function: dict[str, list[Told]] = {}
    for item in told:
        by_function.setdefault(item[0], []).append(item)
    waiting = list(by_function.values())
    rng.shuffle(waiting)
    for group in waiting:
        rng.shuffle(group)
    while waiting:
        for group in waiting:
            yield group.pop()
        waiting = [group for group in waiting if group]


def next_observation(row: Row, rng: random.Random) -> Told | None:
    """What comes of one line of a trace: changed locals, a call, a value, an exception.

    The question holds the frame's variables and the last lines that it ran. None where no line of
    the trace changes anything.
    """
    frames = row["frames"]
    eligible = [
        i
        for i, (frame, after) in enumerate(itertools.pairwise(frames))
        if frame["event"] in ("call", "line") and tells(after)
    ]
    if not eligible:
        return None
    at = rng.choice(eligible)
    own = own_frames(frames, at)
    if own is None:
        return None
    shown = own[-WINDOW:]
    state: dict[str, str] = {}
    for frame in own[: -len(shown)]:
        _update(state, frame)
    _update(state, shown[0])
    head = shown[0]
    lines = [f"In {head['function']} of {head['path']}:", *_locals(state)]
    for number, frame in enumerate(shown):
        lines += [observation(frame, 0)] if number and tells(frame) else []
        lines.append(f"> {frame['source']}")
    head = frames[at]
    return (_place(row["repo"], head), NEXT, "\n".join(lines), observation(frames[at + 1], 1))


def own_frames(frames: Sequence[Row], at: int) -> list[Row] | None:
    """The events of the frame at `at` from its call to there; None where it was called before the
    trace, as a generator that goes on was."""
    depth, own = frames[at]["depth"], []
    for frame in reversed(frames[: at + 1]):
        if frame["depth"] != depth:
            continue
        own.append(frame)
        if frame["event"] == "call":
            return own[::-1]
        if frame["event"] == "resume":
            return None
    return None


def observation(frame: Row, entering: int) -> str:
    """An event in one line; `entering`: a call names the function."""
    event = frame["event"]
    if event == "line":
        return "; ".join(_locals(frame["locals"])) or "nothing"
    if event in ("call", "resume"):
        name = f" {frame['function']}" if entering else ""
        return f"{event}{name}: {'; '.join(_locals(frame['locals']))}".rstrip(": ")
    return f"{event} {frame.get('exception', frame.get('value'))}"


def tells(frame: Row) -> bool:
    """Whether an event says more than which line comes next."""
    return frame["event"] != "line" or bool(frame["locals"])


def output_prediction(row: Row, rng: random.Random) -> Told | None:
    """What a call gives, asked as an evaluation asks it (`traces/predicting.py`)."""
    question = output_question(row["code"], row["function"], row["input"])
    return _place(row["repo"], row), PREDICT, question, row["output"]


def scratchpad(row: Row, rng: random.Random) -> Told | None:
    """What changed line by line; lines are numbered as they are shown. None where a step lies
    outside the text."""
    numbers: dict[int, int] = {}
    listed: list[str] = []
    for number, (at, line) in enumerate(code_lines(row["code"]), start=1):
        numbers[row["line"] + at] = number
        listed.append(f"{number}| {line}")
    answer = []
    for step in row["steps"]:
        line, _, told = step.removeprefix("L").partition(":")
        if int(line) not in numbers:
            return None
        if told.strip():
            answer.append(f"{numbers[int(line)]}| {told.strip()}")
    text = "\n".join([*listed, "", f"Call: {row['input']}".rstrip(": ")])
    return _place(row["repo"], row), TRACE, text, "\n".join([*answer, f"= {row['output']}"])


TELL = {"traces": next_observation, "questions": output_prediction, "scratchpad": scratchpad}


def _odd(file: Path, number: int, error: Exception) -> UserError:
    return UserError(
        f"{file}:{number}: no row of this version's {file.name} ({type(error).__name__}: {error}); "
        "make it anew with selfplay traces"
    )


def _place(repo: str, row: Row) -> str:
    return f"{repo}/{row['path']}::{row['function']}"


def _update(state: dict[str, str], frame: Row) -> None:
    for name, value in frame.get("locals", {}).items():
        if value is None:
            state.pop(name, None)
        else:
            state[name] = value


def _locals(changed: Mapping[str, str | None]) -> list[str]:
    return [f"{name} = {'gone' if value is None else value}" for name, value in changed.items()]
