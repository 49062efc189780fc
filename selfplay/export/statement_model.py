"""Issue texts by a model of any OpenAI-compatible server, from the failing tests alone.

It is told what the template tells and what the tests print. A text is kept only where the leak
check finds nothing of the gold patch and of the oracle tests in it; else the template's stays.
Every answer is written down at once, so that the same command asks for none twice.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from selfplay.errors import InfrastructureError, UserError
from selfplay.export.statement import leaks, problem_statement
from selfplay.files import append_json_lines, read_json_lines, repair_json_lines
from selfplay.policy.openai import OpenAIPolicy
from selfplay.sampling import SampleRequest
from selfplay.seeds import derive_seed
from selfplay.thinking import split
from selfplay.types import SolveTask

log = logging.getLogger(__name__)
FILE = "statements.jsonl"
MAX_OUTPUT, MAX_TEXT, MIN_TEXT = 4000, 4000, 40
"""Characters of what the tests print, and of a text that can be an issue."""
SYSTEM = (
    "You report bugs. From the output of failing tests, write the issue that a user would open: a "
    "title, what goes wrong, what was expected. Quote no code of the tests and do not say how to "
    "repair it."
)


class ModelStatements:
    """Texts by a server; `counts` {outcome: number}. `file` keeps what was answered."""

    def __init__(self, policy: OpenAIPolicy, model: str, file: Path, max_new_tokens: int) -> None:
        self._policy, self._model, self._file = policy, model, file
        self._max_new_tokens = max_new_tokens
        self._gone = False
        self.counts: dict[str, int] = {}
        self._known: dict[str, str] = {}
        if file.is_file():
            repair_json_lines(file, file.with_name(f"{file.name}.torn"))
            self._known = {line["key"]: line["text"] for _, line in read_json_lines(file)}

    def __call__(self, task: SolveTask) -> str:
        """The model's text, or the template's. Raises `UserError` for a key or address that is
        wrong; a server that is gone ends the asking, not the export."""
        usual = problem_statement(task)
        prompt = (
            f"{usual or 'Tests fail.'}\n\nWhat they print:\n{task.failure_output[-MAX_OUTPUT:]}"
        )
        told = "\0".join((self._model, SYSTEM, prompt)).encode("utf-8", "surrogateescape")
        key = hashlib.sha256(told).hexdigest()[:16]
        text = self._known.get(key)
        if text is None:
            text = self._asked(task, prompt)
            if text is None:
                return self._count("not_answered", usual)
            self._keep({"instance_id": task.bug_id, "key": key, "text": text})
        why = refused(text, task)
        return self._count(why, usual) if why else self._count("kept", text)

    def _asked(self, task: SolveTask, prompt: str) -> str | None:
        """The answer without its thoughts, "" for none; None where the server failed."""
        if self._gone:
            return None
        request = SampleRequest(
            prompt_ids=self._policy.tokenizer.render(SYSTEM, prompt),
            max_new_tokens=self._max_new_tokens,
            seed=derive_seed(0, task.bug_id, "statement"),
        )
        groups, error = self._policy.try_sample([request])
        if isinstance(error, UserError):
            raise error
        if error is not None:
            log.warning("no more issue texts are asked for: %s", error)
            self._gone = True
            return None
        [[completion]] = groups
        if completion.errored:
            return None
        return "" if completion.problem else split(completion.text)[1].strip()

    def _keep(self, line: Mapping[str, str]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            append_json_lines(self._file, [line])
        except (OSError, InfrastructureError) as error:
            raise UserError(f"out={self._file.parent}: cannot be written ({error})") from None

    def _count(self, outcome: str, text: str) -> str:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        return text


def refused(text: str, task: SolveTask) -> str:
    """Why a text is not kept: `too_short`, `too_long`, `leak`; "" where it is."""
    if len(text) < MIN_TEXT:
        return "too_short"
    if len(text) > MAX_TEXT:
        return "too_long"
    return "leak" if leaks(text, task) else ""
