"""Questions in CRUXEval's form (arXiv 2401.03065), and the run that says whether they are true."""

from __future__ import annotations

import json
from collections.abc import Sequence

from selfplay.bugs.test_runs.inside import INSIDE
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.base import Job, Quota, Sandbox
from selfplay.traces.recordings import Question

BATCH = 500
HASH_SEED = "2"
"""Another one than the recordings', so that no answer stands on the order of a set."""


def true_questions(
    prepared: PreparedRepo, sandbox: Sandbox, questions: Sequence[Question]
) -> list[Question]:
    """Those that a fresh interpreter in the sandbox answers as the test's run did, each by itself
    with nothing but its module imported."""
    kept: list[Question] = []
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        answers = _asked(prepared, sandbox, batch)
        kept += [q for q, answer in zip(batch, answers, strict=False) if answer == ord("1")]
    return kept


def _asked(prepared: PreparedRepo, sandbox: Sandbox, questions: Sequence[Question]) -> bytes:
    """One character each, "1" where it is true; none where the program did not begin."""
    told = [
        {"module": q.module, "function": q.function, "input": q.input, "output": q.output}
        for q in questions
    ]
    result = sandbox.run(
        Job(
            environment=prepared.environment,
            argv=("python", "/in/ask.py"),
            inputs={
                "ask.py": (INSIDE / "ask.py").read_bytes(),
                "selfplay_values.py": (INSIDE / "values.py").read_bytes(),
                "questions.json": json.dumps(told).encode(),
            },
            variables={"PYTHONHASHSEED": HASH_SEED},
            quota=Quota(timeout_s=60 + 0.2 * len(questions)),
        )
    )
    return result.files.get("answers.txt", b"")
