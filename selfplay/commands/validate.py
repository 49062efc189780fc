"""`selfplay validate`: the consistency validation of one artifact directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from selfplay.bugs.artifact import read_artifact
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.commands.compose import repos_dir, sandbox_pool
from selfplay.commands.output import print_json, print_table
from selfplay.config import ValidateConfig
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.spec import load_spec
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import ValidationReport

CONFIG, SCHEMA = "validate", ValidateConfig
HELP = """
keys: repo=NAME_OR_PATH artifact=DIR, min_passing_tests=5 min_changed_files=1
      min_failing_tests=1 script_timeout_s=90 inverse_hunks=false, sandbox=..., json=true
Exit code 0 valid, 1 invalid, 3 undecided (infrastructure).
"""

EXIT_CODES = {"valid": 0, "invalid": 1, "undecided": 3}


def open_repo(config: ValidateConfig, pool: SandboxPool) -> PreparedRepo:
    """The repository that `repo=` names, prepared."""
    return prepare(load_spec(config.repo, repos_dir(config.repos)), pool.sandbox)


def run(config: ValidateConfig) -> int:
    """Validate and print the report (docs/formats.md)."""
    artifact = read_artifact(Path(config.artifact))
    with sandbox_pool(config.sandbox) as pool:
        prepared = open_repo(config, pool)
        runner = TestRunner(pool.sandbox, prepared.environment)
        report = validate(artifact, prepared.environment, runner, config.limits())
    if config.json:
        print_json(report_document(report))
    else:
        print_table(
            f"{config.artifact}: {report.verdict}",
            ("check", "status", "reason", "detail", "seconds"),
            [(c.name, c.status, c.reason, c.detail, c.duration_s) for c in report.checks],
        )
    return EXIT_CODES[report.verdict]


def report_document(report: ValidationReport) -> dict[str, object]:
    """The JSON document of `selfplay validate ... json=true`."""
    return {
        "verdict": report.verdict,
        "checks": [dataclasses.asdict(check) for check in report.checks],
        "fail_to_pass": list(report.fail_to_pass),
        "pass_to_pass": list(report.pass_to_pass),
        "flaky": list(report.flaky),
        "num_runs": report.num_runs,
    }
