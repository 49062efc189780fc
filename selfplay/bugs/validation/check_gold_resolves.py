"""The `gold_resolves` check: the right fix, graded as a solver's fix would be, must be resolved.

A bug whose gold patch is refused pays every solver -1, whatever it does. What grading does beside
the oracle tests (canary, JUnit XML, exit status, poisoned tests) does not suit every project, and
only grading itself can tell.
"""

from __future__ import annotations

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import reverse_patch
from selfplay.bugs.validation.validation_state import CheckFailed, ValidationState
from selfplay.types import SolveTask


def check_gold_resolves(state: ValidationState) -> str:
    """The reverse of the bug patch is graded once; the reason is `gold_` and grading's own."""
    artifact = state.artifact
    task = SolveTask(
        bug_id=artifact_id(artifact),
        repo="",
        artifact=artifact,
        fail_to_pass=tuple(state.fail_to_pass),
        pass_to_pass=tuple(state.pass_to_pass),
        limits=state.limits,
    )
    report = grade(task, reverse_patch(artifact.bug_patch), state.runs)
    if not report.resolved:
        wrong = [
            t for t, s in {**report.fail_to_pass, **report.pass_to_pass}.items() if s != "passed"
        ]
        raise CheckFailed(
            f"gold_{report.reason}",
            f"the gold patch itself is refused ({report.reason}); not passed: {wrong[:5]}",
        )
    return ""
