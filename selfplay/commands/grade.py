"""`selfplay grade`: one fix patch against one artifact."""

from __future__ import annotations

from pathlib import Path

from selfplay.bugs.artifact import artifact_id, read_artifact
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.commands.compose import sandbox_pool
from selfplay.commands.output import print_json, print_table, say
from selfplay.commands.validate import EXIT_CODES, open_repo
from selfplay.config import GradeConfig
from selfplay.errors import UserError
from selfplay.types import SolveTask

CONFIG, SCHEMA = "grade", GradeConfig
HELP = """
keys: repo=NAME_OR_PATH artifact=DIR patch=FILE, sandbox=..., json=true (and those of validate)
The artifact is validated first (that is where FAIL_TO_PASS and PASS_TO_PASS come from).
Exit code 0 resolved, 1 not resolved (or the artifact is invalid), 3 undecided.
"""


def run(config: GradeConfig) -> int:
    """Validate, grade, print the report (docs/formats.md)."""
    artifact = read_artifact(Path(config.artifact))
    path = Path(config.patch)
    try:
        patch = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UserError(f"patch={config.patch}: cannot be read ({error.strerror})") from None
    with sandbox_pool(config.sandbox) as pool:
        prepared = open_repo(config, pool)
        runner = TestRunner(pool.sandbox, prepared.environment)
        checked = validate(artifact, prepared.environment, runner, config.limits())
        if checked.verdict != "valid":
            say(f"{config.artifact} is {checked.verdict} ({checked.reason}); nothing to grade")
            return EXIT_CODES[checked.verdict]
        task = SolveTask(
            bug_id=artifact_id(artifact),
            repo=prepared.name,
            artifact=artifact,
            fail_to_pass=checked.fail_to_pass,
            pass_to_pass=checked.pass_to_pass,
            limits=config.limits(),
        )
        report = grade(task, patch, runner)
    if config.json:
        print_json(
            {
                "resolved": report.resolved,
                "reward": report.reward,
                "fail_to_pass": dict(report.fail_to_pass),
                "pass_to_pass": dict(report.pass_to_pass),
                "reason": report.reason,
            }
        )
    else:
        verdict = "resolved" if report.resolved else f"not resolved ({report.reason})"
        rows = [("FAIL_TO_PASS", t, s) for t, s in report.fail_to_pass.items()]
        rows += [("PASS_TO_PASS", t, s) for t, s in report.pass_to_pass.items() if s != "passed"]
        print_table(f"{config.patch}: {verdict}", ("list", "test", "status"), rows)
    return 0 if report.resolved else 1
