"""The tools of the agentic scaffold, as in CWM: bash, edit, create, submit (docs/agentic.md).

`ToolBox` performs calls in a session of the sandbox and answers with text for the model. An answer
to a malformed call says how to do it right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfplay.chat import ToolCall, ToolSpec
from selfplay.sandbox.base import WORKDIR
from selfplay.sandbox.session.session import FileProblem, Session, SessionResult

_HALF = re.compile(r"[\ud800-\udfff]")
"""JSON can write it, UTF-8 cannot: no file, no command and no tokenizer takes it."""
MAX_PLACES = 8
"""Line numbers that an answer names at most."""


def _spec(name: str, description: str, **parameters: str) -> ToolSpec:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
        "additionalProperties": False,
    }
    return ToolSpec(name=name, description=description, parameters=schema)


BASH = _spec(
    "bash",
    "Run a bash command. Directory, variables and files are kept from call to call. A command that "
    "takes too long is stopped with everything that it started. There is no network and no "
    "terminal: standard input is empty.",
    command="the command, of one or more lines",
)
EDIT = _spec(
    "edit",
    "Replace a piece of a file. The searched text must occur in it exactly once, blanks included.",
    path=f"the file, absolute or relative to {WORKDIR}",
    search="the text to be replaced",
    replace="the text to put in its place",
)
CREATE = _spec(
    "create",
    "Write a file, new or over an old one; missing folders are made.",
    path=f"the file, absolute or relative to {WORKDIR}",
    content="everything that the file is to hold",
)
SUBMIT = _spec("submit", "Hand in the work as it lies in the sandbox now. This ends the task.")
TOOLS = (BASH, EDIT, CREATE, SUBMIT)


class BadArguments(Exception):
    """A call that no tool can perform; its text tells the model what to do instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolBox:
    """Performs calls in one session.

    command_s    seconds for one command
    max_output   bytes of a command's output that are shown; of more, the middle is left out
    """

    session: Session
    command_s: float = 120.0
    max_output: int = 8000

    def perform(self, call: ToolCall, timeout_s: float) -> str:
        """The answer to a call of any tool but submit, in at most `timeout_s` (and `command_s`).

        Raises `BadArguments`, and `SandboxError` or `SandboxSpent` when the session is gone.
        """
        arguments = check_arguments(call)
        if call.name == "bash":
            seconds = max(1.0, min(self.command_s, timeout_s))
            return shown(self.session.run(arguments["command"], seconds, self.max_output))
        try:
            if call.name == "edit":
                return self._edit(**arguments)
            return self._create(**arguments)
        except FileProblem as problem:
            return f"{arguments['path']}: {PROBLEMS.get(str(problem), str(problem))}"

    def _edit(self, path: str, search: str, replace: str) -> str:
        raw = self.session.read(path, follow=True)
        text = raw.decode("utf-8", "surrogateescape")
        if not search:
            return "The searched text is empty: nothing was changed. Name the lines to replace."
        search, replace = fitted(text, search, replace)
        places = text.count(search)
        if places != 1:
            return f"{path}: nothing was changed. {why_not_once(text, search)}"
        if search == replace:
            return f"{path}: nothing was changed. Search and replacement are the same."
        line = text.count("\n", 0, text.index(search)) + 1
        self.session.write(path, text.replace(search, replace).encode("utf-8", "surrogateescape"))
        return f"{path}: replaced at line {line}."

    def _create(self, path: str, content: str) -> str:
        try:
            self.session.read(path, 0, follow=True)
            known = True
        except FileProblem as problem:
            known = str(problem) == "huge"
        self.session.write(path, content.encode("utf-8", "surrogateescape"))
        return f"{path}: {'overwritten' if known else 'written'}."


PROBLEMS = {
    "missing": "no such file.",
    "directory": "is a directory, not a file.",
    "special": "is no plain file.",
    "huge": "is too large for this tool; use bash.",
}


def check_arguments(call: ToolCall) -> dict[str, str]:
    """The arguments of a call to a known tool, all of them text. Raises `BadArguments`."""
    spec = next((tool for tool in TOOLS if tool.name == call.name), None)
    if spec is None:
        names = ", ".join(tool.name for tool in TOOLS)
        raise BadArguments(f"There is no tool {call.name[:80]!r}. The tools are: {names}.")
    if any(_HALF.search(f"{name}{value}") for name, value in call.arguments.items()):
        raise BadArguments(f"{call.name}: an argument holds half a character (\\ud83d).")
    wanted: Mapping[str, Any] = spec.parameters["properties"]
    missing = [name for name in wanted if name not in call.arguments]
    unknown = [str(name)[:40] for name in call.arguments if name not in wanted]
    if missing or unknown:
        takes = ", ".join(wanted) or "no arguments"
        raise BadArguments(
            f"{call.name} takes {takes}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown[:5])}" if unknown else "")
            + "."
        )
    for name, value in call.arguments.items():
        if not isinstance(value, str):
            raise BadArguments(f"{call.name}: {name} must be text, not {type(value).__name__}.")
        if name in ("path", "command") and "\0" in value:
            raise BadArguments(f"{call.name}: {name} holds a zero byte.")
        if name == "path" and not value.strip():
            raise BadArguments(f"{call.name}: path is empty.")
    return dict(call.arguments)


def shown(result: SessionResult) -> str:
    """A command's output as the model sees it, and how the command ended."""
    text = result.output.decode("utf-8", "replace").replace("\0", "\ufffd").rstrip("\n")
    if result.timed_out:
        how = (
            f"[stopped after {result.duration_s:.0f} s, with everything that was running; files "
            "are as it left them. Use a shorter command.]"
        )
    else:
        how = f"[exit code {result.exit_code}]"
    return f"{text}\n{how}" if text else how


def fitted(text: str, search: str, replace: str) -> tuple[str, str]:
    """Search and replacement with the line ends of the file, where that is all that differs."""
    if search in text:
        return search, replace
    if "\r\n" in text and "\r\n" not in search:
        dos = search.replace("\n", "\r\n"), replace.replace("\n", "\r\n")
        if dos[0] in text:
            return dos
    if search.endswith("\n") and text.endswith(search[:-1]):
        return search[:-1], replace.removesuffix("\n")
    return search, replace


def why_not_once(text: str, search: str) -> str:
    """Why a search is no single place, with the lines where it, or something like it, stands."""
    lines = text.splitlines()
    num = text.count(search)
    if num > 1:
        starts: list[str] = []
        at = text.find(search)
        while at >= 0 and len(starts) < MAX_PLACES:
            starts.append(str(text.count("\n", 0, at) + 1))
            at = text.find(search, at + 1)
        return (
            f"The searched text occurs {num} times (lines {', '.join(starts)}): add lines around "
            "it until it occurs once."
        )
    first = next((line.strip() for line in search.splitlines() if line.strip()), "")
    near = [str(i) for i, line in enumerate(lines, 1) if first and line.strip() == first]
    if near:
        return (
            f"The searched text does not occur; its first line stands at {', '.join(near[:8])}, "
            "with other blanks or other lines after it. Look at the file and copy it exactly."
        )
    return "The searched text does not occur. Look at the file and copy it exactly."
