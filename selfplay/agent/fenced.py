"""Tool calls as plain fenced text, for models without tool support and for scripted agents.

A call is one block of backticks whose first word names the tool; its `path`, where it takes one,
follows on the same line, and the other arguments are its lines, `=======` between two of them:

    ```edit src/shop.py
    return price
    =======
    return price * number
    ```

Arguments of whole lines end with a line break, but for a command. A longer fence lets the lines
hold backticks of their own.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from selfplay import thinking
from selfplay.agent.blocks import Block, blocks
from selfplay.agent.calls.formats import other_style
from selfplay.agent.calls.styles import SHELLS
from selfplay.agent.tools import TOOLS
from selfplay.chat import BadCall, ToolCall, ToolSpec
from selfplay.errors import UserError
from selfplay.sampling import Tokenizer

SEPARATOR = "======="
FORMAT = """\
Every answer holds exactly one tool call and ends with it. A tool call is a block between lines of \
three backticks; the first of them names the tool. Write what you think before the block.

{tools}

If the lines of a block hold backticks, use four or more around it."""


class FencedRenderer:
    """A `ChatRenderer` over any tokenizer whose template ends each message with the end-of-turn
    token (ChatML, Llama 3); observations are messages of the user. `UserError` for others."""

    rewrites = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end_of_turn_id = tokenizer.end_of_turn_id
        if tokenizer.render("a", "b").count(self.end_of_turn_id) != 2:
            raise UserError(
                "this model's chat template does not end each message with the end-of-turn token: "
                "plain fenced calls do not fit it, choose a model with tool calls of its own"
            )

    def render(self, system: str, user: str, tools: Sequence[ToolSpec]) -> tuple[int, ...]:
        """Ids of the first prompt; the system message explains the tools and the format."""
        if not tools:
            return self._tokenizer.render(system, user)
        text = FORMAT.format(tools="\n\n".join(describe(tool) for tool in tools))
        return self._tokenizer.render(f"{system}\n\n{text}", user)

    def bridge(
        self, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...], observation: str
    ) -> tuple[int, ...]:
        """The next prompt (see `ChatRenderer.bridge`)."""
        end = self.end_of_turn_id
        closing = () if completion_ids[-1:] == (end,) else (end,)
        whole = self._tokenizer.render("a", observation)
        following = whole[whole.index(end) + 1 :]
        assert following.count(end) == 1
        return (*prompt_ids, *completion_ids, *closing, *following)

    def rewritten(
        self,
        system: str,
        user: str,
        tools: Sequence[ToolSpec],
        turns: Sequence[tuple[Sequence[int], str]],
    ) -> tuple[int, ...]:
        """See `ChatRenderer.rewritten`: nothing is."""
        prompt = self.render(system, user, tools)
        for completion, observation in turns:
            prompt = self.bridge(prompt, tuple(completion), observation)
        return prompt

    def parse(self, completion_ids: Sequence[int]) -> ToolCall | BadCall:
        """The one block of a completion that names a tool."""
        return parse_call(self._tokenizer.decode(completion_ids))


def describe(tool: ToolSpec) -> str:
    """How one tool is called, for the system message."""
    names = list(tool.parameters["properties"])
    body = [f"<{name}>" for name in names if name != "path"]
    head = f"```{tool.name}{' <path>' if 'path' in names else ''}"
    lines = f"\n{SEPARATOR}\n".join(body)
    block = f"{head}\n{lines}\n```" if lines else f"{head}\n```"
    return f"{tool.name}: {tool.description}\n{block}"


def write_call(call: ToolCall) -> str:
    """The text of a call; `parse_call` reads it back."""
    arguments = {name: str(value) for name, value in call.arguments.items()}
    path = arguments.pop("path", "")
    body = "".join(
        f"{SEPARATOR}\n" * (i > 0) + value + "\n" * (bool(value) and not value.endswith("\n"))
        for i, value in enumerate(arguments.values())
    )
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    fence = "`" * max(3, longest + 1)
    head = f"{call.thought.rstrip()}\n" if call.thought.strip() else ""
    return f"{head}{fence}{call.name}{f' {path}' if path else ''}\n{body}{fence}"


def parse_call(text: str) -> ToolCall | BadCall:
    """The call of an answer; what was only thought and blocks that name no tool do not count."""
    thought_of, spoken = thinking.split(text)
    names = {tool.name: tool for tool in TOOLS}
    shells = dict.fromkeys(SHELLS, names["bash"])
    found = [block for block in blocks(spoken) if block.word in names] or [
        block for block in blocks(spoken) if block.word in shells
    ]
    if not found:
        return other_style(
            thought_of, spoken, "End your answer with one block such as:\n```bash\nls\n```"
        )
    block = dataclasses.replace(found[0], before=(thought_of + found[0].before).strip())
    if len(found) > 1:
        return BadCall(
            problem="There was more than one tool call. Make one call, and wait for its answer.",
            thought=block.before,
        )
    if not block.closed:
        return BadCall(
            problem=f"The {block.word} block was not closed: end it with a line of as many "
            "backticks as it began with.",
            thought=block.before,
        )
    return _call((names | shells)[block.word], block)


def _call(tool: ToolSpec, block: Block) -> ToolCall | BadCall:
    names = list(tool.parameters["properties"])
    arguments: dict[str, str] = {}
    if "path" in names:
        arguments["path"] = block.rest
        names.remove("path")
    elif block.rest:
        return BadCall(
            problem=f"Nothing may follow {tool.name} on its line; begin on the next.",
            thought=block.before,
        )
    pieces = _pieces(block.lines, len(names) > 1)
    if len(pieces) != max(1, len(names)) or (not names and "".join(block.lines).strip()):
        wanted = f"{len(names)} parts with a line {SEPARATOR} between" if names else "no lines"
        return BadCall(problem=f"{tool.name} takes {wanted}.", thought=block.before)
    for name, piece in zip(names, pieces, strict=False):
        arguments[name] = piece.rstrip("\n") if name == "command" else piece
    return ToolCall(name=tool.name, arguments=arguments, thought=block.before)


def _pieces(lines: Sequence[str], separated: bool) -> list[str]:
    pieces = [""]
    for line in lines:
        if separated and line.rstrip() == SEPARATOR:
            pieces.append("")
        else:
            pieces[-1] += f"{line}\n"
    return pieces
