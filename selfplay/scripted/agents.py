"""Scripted agents: they explore, write files, run tests and edit, through the same loop as a model.

An agent is a generator of tool calls that is sent the observations. The policy around it holds no
state: it reads the chat back from the prompt's tokens and replays the agent up to the next call.
They know Python (pytest) and Perl (prove), and nothing of any single repository.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from selfplay.agent.fenced import write_call
from selfplay.chat import ToolCall
from selfplay.sampling import SampleRequest
from selfplay.scripted.compact import ByteTokenizer
from selfplay.scripted.habits import Habits, habits_for
from selfplay.types import Completion

Agent = Generator[ToolCall, str, None]
PROGRAMS = Path(__file__).parent / "programs"
SUBMISSION = "/tmp/submission"
LINES_A_CALL = 70
MAX_TRIED = 8
"""Test files that an injector looks at."""


COMBINE = """\
for d in /tmp/material/*/; do git apply "$d/bug_inject.diff" || exit 1; done
cat /tmp/material/*/test_weaken.diff | sed -n 's,^+++ b/,,p' | sort -u"""


class ScriptedAgents:
    """A `Policy` without weights that plays both agentic roles; log-probabilities are 0."""

    def __init__(self) -> None:
        self.version = 0
        self.tokenizer = ByteTokenizer()

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        """The next call of each chat; every sample of a request is the same."""
        return [[self._answer(request)] * request.num_samples for request in requests]

    def _answer(self, request: SampleRequest) -> Completion:
        user, *observations = self.tokenizer.user_turns(request.prompt_ids)
        text = write_call(next_call(user, observations))
        token_ids = (*self.tokenizer.encode(text), self.tokenizer.end_of_turn_id)
        cut = token_ids[: request.max_new_tokens]
        return Completion(
            token_ids=cut,
            logprobs=(0.0,) * len(cut),
            text=self.tokenizer.decode(cut),
            finish_reason="stop" if len(cut) == len(token_ids) else "length",
            policy_version=self.version,
        )


def next_call(user: str, observations: Sequence[str]) -> ToolCall:
    """What the agent for a task does after these observations; at its end it submits."""
    agent = injector(user) if user.startswith("Plant a bug") else solver(user)
    try:
        call = next(agent)
        for observation in observations:
            call = agent.send(observation.rpartition("\n")[0])  # without the budget line
    except StopIteration:
        return ToolCall(name="submit", arguments={}, thought="That is all I can do.")
    return call


def bash(command: str, thought: str = "") -> ToolCall:
    """A bash call."""
    return ToolCall(name="bash", arguments={"command": command}, thought=thought)


def create(path: str, content: str, thought: str = "") -> ToolCall:
    """A create call."""
    return ToolCall(name="create", arguments={"path": path, "content": content}, thought=thought)


def program(name: str) -> Agent:
    """Write one of our programs into the sandbox, in pieces that fit an answer."""
    lines = (PROGRAMS / f"{name}.py").read_text(encoding="utf-8").splitlines(keepends=True)
    place = f"/tmp/{name}.py"
    pieces = ["".join(lines[i : i + LINES_A_CALL]) for i in range(0, len(lines), LINES_A_CALL)]
    yield create(place, pieces[0], "A program of my own.")
    for piece in pieces[1:]:
        yield bash(f"cat >> {place} <<'END OF PIECE'\n{piece}END OF PIECE")


def injector(user: str) -> Agent:
    """Explore, choose tests, write script and parser, plant, weaken, check, submit."""
    seen = yield bash("git log --oneline | head -5; ls; ls t lib tests 2>/dev/null", "Look round.")
    language = habits_for(seen.splitlines())
    chosen: list[str] = []
    if "known bugs of this repository" in user:
        chosen = _paths((yield bash(COMBINE, "Both known bugs go into the tree.")))
    else:
        listed = yield bash(language.find_tests, "Which tests are there?")
        for file in _paths(listed)[:MAX_TRIED]:
            words = yield from _try_tests(language, [file])
            if words >= 6:
                chosen = [file]
                break
    yield from _write_tests(language, chosen)
    if "known bugs of this repository" not in user:
        yield from _plant(language, user, chosen)
    diff = f"git diff > {SUBMISSION}/bug_inject.diff; git diff --stat"
    seen = yield bash(f"{diff}; {_run()}", "The bug as a patch, and what the tests say now.")
    failed = [test for test, status in _answer(seen).items() if status == "failed"]
    yield from program("weaken")
    paths = " ".join(map(shlex.quote, chosen))
    ids = " ".join(map(shlex.quote, failed))
    yield bash(
        f"python /tmp/weaken.py {ids} && git diff -- {paths} > {SUBMISSION}/test_weaken.diff; "
        f"{_run()}; wc -c {SUBMISSION}/*",
        "Take out the tests that give it away.",
    )


def _try_tests(language: Habits, files: Sequence[str]) -> Generator[ToolCall, str, int]:
    """How many tests of some files pass; 0 when one does not."""
    yield from _write_tests(language, files)
    table = _answer((yield bash(f"time {_run()}", "Do they pass?")))
    return len(table) if set(table.values()) == {"passed"} else 0


def _write_tests(language: Habits, files: Sequence[str]) -> Agent:
    quoted = " ".join(map(shlex.quote, files))
    yield create(f"{SUBMISSION}/test_script.sh", f"#!/bin/bash\n{language.script}{quoted}\n")
    yield create(f"{SUBMISSION}/test_parser.py", language.parser)
    yield create(f"{SUBMISSION}/test_files.txt", "".join(f"{file}\n" for file in files))


def _plant(language: Habits, user: str, tests: Sequence[str]) -> Agent:
    """The bug, by the strategy: a past change undone, a block removed, or an operator swapped."""
    sources = _by_name(_paths((yield bash(language.find_sources, "Now the sources."))), tests)
    target = re.search(r"^Where: (?:look at commit \w+, and there at )?(\S+?)[,.]( |$)", user, re.M)
    if target and target[1] in sources:
        sources.insert(0, target[1])
        sources = list(dict.fromkeys(sources))
    yield from program("survey")
    quoted = " ".join(map(shlex.quote, sources[:6]))
    modes = ["plant"]
    if "How: read the history" in user:
        yield bash(f"git log --stat --format='%h %s' -n 3 -- {quoted} | tail -15")
        modes = ["undo", "plant"]
    elif "How: take away" in user:
        modes = ["remove", "plant"]
    for mode in modes:
        found = _answer((yield bash(_survey(mode, quoted), "What would the tests notice?")))
        if "patch" in found:
            yield bash(f"cat {found['patch']}; git apply -R --recount -C1 {found['patch']}")
            return
        if found:
            arguments = {name: found[name] for name in ("path", "search", "replace")}
            yield ToolCall(name="edit", arguments=arguments, thought="Here.")
            return


def solver(user: str) -> Agent:
    """Look round, bring the tests back, find the change that mends them, make it, check, submit."""
    if "docs/examples.jsonl" in user:
        yield from program("recall")
        yield bash("python /tmp/recall.py docs/examples.jsonl program; git status --short")
        return
    files = re.findall(r"^\+\+\+ b/(\S+)", user, re.MULTILINE)
    language = habits_for(files)
    yield bash("git log --oneline; git status --short | head; ls", "Look round.")
    yield bash("git apply /tmp/tests.diff && git commit -qam 'Tests' && git log --oneline")
    yield from _write_tests(language, files)
    seen = yield bash(_run(), "What fails?")
    sources = _by_name(_paths((yield bash(language.find_sources))), files)
    if "failed" not in _answer(seen).values():
        return
    yield from program("survey")
    quoted = " ".join(map(shlex.quote, sources))
    found = _answer((yield bash(_survey("mend", quoted), "Which small change mends it?")))
    if found:
        arguments = {name: found[name] for name in ("path", "search", "replace")}
        yield ToolCall(name="edit", arguments=arguments, thought="This one.")
        yield bash(f"{_run()}; git diff HEAD", "Does all of it pass now?")


def _run() -> str:
    return f"bash {SUBMISSION}/test_script.sh 2>&1 | python {SUBMISSION}/test_parser.py; echo"


def _survey(mode: str, sources: str) -> str:
    places = f"{SUBMISSION}/test_script.sh {SUBMISSION}/test_parser.py"
    return f"timeout 110 python /tmp/survey.py {mode} {places} {sources}"


def _answer(observation: str) -> dict[str, Any]:
    """The last line of an observation that is a JSON object, {} without one."""
    for line in reversed(observation.splitlines()):
        if line.startswith("{"):
            try:
                document: dict[str, Any] = json.loads(line)
            except ValueError:
                return {}
            return document
    return {}


def _paths(observation: str) -> list[str]:
    lines = observation.splitlines()
    return [line for line in lines if line and not line.startswith("[") and " " not in line]


def _by_name(sources: Sequence[str], tests: Sequence[str]) -> list[str]:
    """Sources named like the tests first: tests/test_keys.py is about keys.py."""
    names = {re.sub(r"^test_|\.\w+$", "", test.rpartition("/")[2]).lower() for test in tests}

    def distance(path: str) -> tuple[bool, bool]:
        stem = path.rpartition("/")[2].partition(".")[0].lower()
        return stem not in names, stem != "__init__"

    return sorted(sources, key=distance)
