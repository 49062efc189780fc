"""Consistency validation of an artifact (docs/validation.md): cheapest check first, three values.

pass, fail, or undecided (the infrastructure failed: never a reward). The first check that does not
pass ends the validation. Reason codes are listed in docs/validation.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.runner import ReadsTests
from selfplay.bugs.validation.check_gold_resolves import check_gold_resolves
from selfplay.bugs.validation.check_parser_honesty import check_parser_honesty
from selfplay.bugs.validation.checks_run import (
    check_bug,
    check_determinism,
    check_inverse_mutation,
    check_parser,
    check_script,
    check_weakening,
)
from selfplay.bugs.validation.checks_static import (
    check_forbidden_content,
    check_scope,
    check_test_files,
)
from selfplay.bugs.validation.validation_state import CheckFailed, ValidationState
from selfplay.errors import InfrastructureError, PatchError, UserError
from selfplay.sandbox.base import Environment
from selfplay.types import BugArtifact, Check, Limits, ValidationReport, Verdict

CHECKS: tuple[tuple[str, Callable[[ValidationState], str]], ...] = (
    ("test_files", check_test_files),
    ("scope", check_scope),
    ("forbidden_content", check_forbidden_content),
    ("parser", check_parser),
    ("script", check_script),
    ("bug", check_bug),
    ("weakening", check_weakening),
    ("inverse_mutation", check_inverse_mutation),
    ("determinism", check_determinism),
    ("parser_honesty", check_parser_honesty),
    ("gold_resolves", check_gold_resolves),
)
FAILURE_CHARACTERS = 6000

"""How `prove` announces a test file."""
_VERDICTS: dict[str, Verdict] = {"fail": "invalid", "undecided": "undecided"}


def validate(
    artifact: BugArtifact,
    environment: Environment,
    runner: ReadsTests,
    limits: Limits | None = None,
) -> ValidationReport:
    """Validate one artifact on its repository's environment; never raises for a bad artifact."""
    state = ValidationState(
        artifact=artifact, environment=environment, runner=runner, limits=limits or Limits()
    )
    checks: list[Check] = []
    verdict: Verdict = "valid"
    for name, function in CHECKS:
        if verdict != "valid":
            checks.append(Check(name=name, status="not_run"))
            continue
        check = _perform(name, function, state)
        checks.append(check)
        verdict = _VERDICTS.get(check.status, "valid")
    return ValidationReport(
        verdict=verdict,
        checks=tuple(checks),
        fail_to_pass=tuple(state.fail_to_pass),
        pass_to_pass=tuple(state.pass_to_pass),
        flaky=tuple(state.flaky),
        num_runs=state.runs.num_runs,
        failure_output=failure_excerpt(state.bug_run.output) if state.bug_run else "",
    )


def _perform(
    name: str, function: Callable[[ValidationState], str], state: ValidationState
) -> Check:
    began = time.monotonic()
    try:
        status, reason, detail = "pass", "", function(state)
    except CheckFailed as failure:
        status, reason, detail = "fail", failure.reason, failure.detail
    except PatchError as error:
        status, reason, detail = "fail", "malformed", str(error)
    except (UserError, InfrastructureError) as error:  # a setting that is wrong is no bad bug
        status, reason, detail = "undecided", "infrastructure", str(error)
    return Check(
        name=name,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        detail=detail,
        duration_s=round(time.monotonic() - began, 4),
    )


def failure_excerpt(output: str) -> str:
    """The part of a run's output that tells what failed, at most about `FAILURE_CHARACTERS`.

    As the framework's own words for it are found; the tail where there are none.
    """
    found = (f.excerpt(output, FAILURE_CHARACTERS) for f in FRAMEWORKS.values())
    return next((text for text in found if text is not None), output[-FAILURE_CHARACTERS:])
