"""Repairs without tests: functions of any Python code, broken and put right as text.

A validated bug costs seconds of test runs and needs a repository whose tests run; reading code
costs neither. Such examples teach a small model how mutations are undone, in so many functions
that it cannot learn them by heart; what tests say, it learns from validated bugs. The prompt is
the solver's own, without its part about tests: the lines that it names are drawn.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
import random
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfplay.bug_sources.procedural import Mutation, by_operator, propose
from selfplay.bugs.patches.paths import is_source_path
from selfplay.compact.edits import Listing, edited_numbers, render_edit
from selfplay.compact.excerpts import excerpt
from selfplay.errors import UserError
from selfplay.repo.languages.functions import FunctionInfo, list_functions
from selfplay.repo.languages.python_source import split_lines
from selfplay.roles.prompts import bare_question, render
from selfplay.sampling import Tokenizer
from selfplay.seeds import derive_rng
from selfplay.warmstart.examples import SupervisedExample, make_example

MIN_LINES, MAX_LINES = 2, 30
"""Of a function: lines in its file at least, lines shown at most (in its file: twice as many)."""
NEIGHBOUR_SHARE = 0.4
"""Share of prompts that show a second function of the file, as most prompts of a run do."""
FIRST_SHARE = 0.8
"""Share of those in which the broken function comes first, as the most suspicious one does."""
UNTOLD_SHARE = 0.15
"""Share of prompts that name no lines, as those of bugs without a spectrum do."""
MISLED_SHARE = 0.1
"""Share of the others that name only wrong ones."""
NUM_SUSPECTS = {1: 0.25, 2: 0.2, 3: 0.2, 4: 0.1, 5: 0.25}
"""How many lines are named: shares as among the held-out bugs."""
MAX_FILE_BYTES = 200_000
MAX_CHARACTERS = 8_000
"""Of a function: no prompt shows a longer one, and its mutations would take minutes to list."""
_FOREIGN = ("site-packages", "dist-packages", "idlelib", "turtledemo", "lib2to3")


@dataclasses.dataclass(frozen=True, slots=True)
class CodeSource:
    """A directory of Python code; `version` says of what release, where that is known."""

    name: str
    directory: Path
    version: str = ""


def code_source(name: str) -> CodeSource:
    """`stdlib`, an installed package, or a directory. Raises `UserError`."""
    if name == "stdlib":
        return CodeSource(name, Path(sysconfig.get_path("stdlib")), platform.python_version())
    if Path(name).is_dir():
        return CodeSource(name, Path(name))
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"sources: {name}: neither stdlib, an installed package nor a directory")
    owners = importlib.metadata.packages_distributions().get(name, [])
    version = importlib.metadata.version(owners[0]) if owners else ""
    return CodeSource(name, Path(next(iter(spec.submodule_search_locations))), version)


def bare_examples(
    sources: Sequence[CodeSource],
    tokenizer: Tokenizer,
    seed: int,
    *,
    max_prompt_tokens: int = 256,
    behind: str = "",
) -> Iterator[tuple[str, SupervisedExample]]:
    """("SOURCE/PATH::FUNCTION", example), the sources and their functions in random order.

    Operators are drawn evenly. Ends when every function had its turn. Nothing is run, no test
    file is read. What a file gives depends on its name and the seed alone; with `behind`, a
    "SOURCE/PATH", those that come after it are read.
    """
    rng = derive_rng(seed, "bare", *[source.name for source in sources])
    files = [(source, path) for source in sources for path in _files(source.directory)]
    rng.shuffle(files)
    for source, path in files:
        name = path.relative_to(source.directory).as_posix()
        if behind:
            behind = "" if behind == f"{source.name}/{name}" else behind
            continue
        rng = derive_rng(seed, "bare", source.name, name)
        text = _text(path)
        functions = list_functions(text, name) if text else []
        lines = split_lines(text)
        rng.shuffle(functions)
        for function in functions:
            if not _is_short(lines, function):
                continue
            operators = by_operator(propose(text, function))
            if not operators:
                continue
            mutation = rng.choice(operators[rng.choice(sorted(operators))])
            example = _example(rng, tokenizer, text, function, mutation, functions)
            if example and len(example.prompt_ids) <= max_prompt_tokens:
                yield f"{source.name}/{name}::{function.qualname}", example


def _is_short(lines: Sequence[str], function: FunctionInfo) -> bool:
    own = lines[function.start_line - 1 : function.end_line]
    return MIN_LINES <= len(own) <= 2 * MAX_LINES and sum(map(len, own)) <= MAX_CHARACTERS


def _files(directory: Path) -> list[Path]:
    return [
        path
        for path in sorted(directory.rglob("*.py"))
        if is_source_path(path.relative_to(directory).as_posix())
        and not {*path.relative_to(directory).parts} & {*_FOREIGN}
        and path.stat().st_size <= MAX_FILE_BYTES
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _example(
    rng: random.Random,
    tokenizer: Tokenizer,
    text: str,
    function: FunctionInfo,
    mutation: Mutation,
    functions: Sequence[FunctionInfo],
) -> SupervisedExample | None:
    """The broken function, perhaps with one above it in the file; None when the repair lies
    outside the listing."""
    broken = mutation.source
    num_lines = len(split_lines(mutation.function))
    shown = [dataclasses.replace(function, end_line=function.start_line + num_lines - 1)]
    above = [f for f in functions if f.end_line < function.start_line]
    if above and rng.random() < NEIGHBOUR_SHARE:
        shown.insert(1 if rng.random() < FIRST_SHARE else 0, rng.choice(above))
    excerpts = [excerpt(broken, f, max_lines=MAX_LINES) for f in shown]
    listing = Listing(excerpts, {function.path: broken})
    try:
        answer = render_edit(listing, {function.path: text})
    except ValueError:
        return None
    told = drawn_suspects(rng, edited_numbers(answer)[0], listing)
    prompt = bare_question(listing.render(), told)
    return make_example("solver", tokenizer, tokenizer.render(render("system"), prompt), answer)


def drawn_suspects(rng: random.Random, wrong: int, listing: Listing) -> list[int]:
    """Lines that a spectrum might have named: neighbours that a test runs one after the other, the
    `wrong` line mostly among them; never the head of a function."""
    if rng.random() < UNTOLD_SHARE:
        return []
    heads = {row for e in listing.excerpts for row in e.rows[:1]}
    body = [n for n, line in enumerate(listing.lines, 1) if line.row not in heads]
    size = rng.choices([*NUM_SUSPECTS], [*NUM_SUSPECTS.values()])[0]
    if rng.random() < MISLED_SHARE:
        body = [number for number in body if number != wrong]
    near = body.index(wrong) if wrong in body else rng.randrange(max(1, len(body)))
    first = max(0, min(near - rng.randrange(size), len(body) - size))
    return body[first : first + size]
