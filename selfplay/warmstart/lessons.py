"""Supervised examples as they are stored and as the learner wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfplay.files import read_json_lines
from selfplay.seeds import derive_rng
from selfplay.warmstart.examples import SupervisedExample


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One supervised example as the learner wants it; `function` keeps splits apart."""

    role: str
    function: str
    token_ids: tuple[int, ...]
    loss_mask: tuple[int, ...]


def lesson_line(example: SupervisedExample, function: str) -> dict[str, Any]:
    """The stored form."""
    return {
        "role": example.role,
        "function": function,
        "prompt_ids": list(example.prompt_ids),
        "answer_ids": list(example.answer_ids),
        "answer": example.answer,
    }


def read_lesson(line: Mapping[str, Any]) -> Lesson:
    """Inverse of `lesson_line`, with the loss on the answer alone."""
    prompt, answer = tuple(line["prompt_ids"]), tuple(line["answer_ids"])
    return Lesson(
        role=line["role"],
        function=line["function"],
        token_ids=prompt + answer,
        loss_mask=(0,) * len(prompt) + (1,) * len(answer),
    )


def read_lessons(files: Sequence[Path]) -> list[Lesson]:
    """All lessons of these files, in order."""
    return [read_lesson(line) for path in files for _, line in read_json_lines(path)]


def split(
    lessons: Sequence[Lesson], fraction: float, seed: int
) -> tuple[list[Lesson], list[Lesson]]:
    """Hold out whole functions, so that no listing is on both sides."""
    names = sorted({lesson.function for lesson in lessons})
    held = set(derive_rng(seed, "split").sample(names, max(1, int(len(names) * fraction))))
    return (
        [lesson for lesson in lessons if lesson.function not in held],
        [lesson for lesson in lessons if lesson.function in held],
    )
