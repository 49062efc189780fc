"""Start-up self-check before step 1 (architecture.md, decision 10): fail now, not in an hour."""

from __future__ import annotations

from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import reverse_patch
from selfplay.bugs.validation.validate import validate
from selfplay.curriculum.arena import Arena, Stage
from selfplay.curriculum.injecting import solve_task
from selfplay.errors import InfrastructureError, PolicyError, SandboxError
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Job
from selfplay.types import SolveTask
from selfplay.warmstart.procedural_answers import procedural_bugs

MAX_TRIES = 40


def self_check(stage: Stage, repo: str) -> None:
    """One generation, one sandbox command, one known bug graded both ways.

    Raises `InfrastructureError` (exit code 3) that names the part that does not work.
    """
    prompt = stage.policy.tokenizer.render("", "Say one word.")
    (answers,) = stage.policy.sample([SampleRequest(prompt_ids=prompt, max_new_tokens=4)])
    if len(answers) != 1 or not answers[0].token_ids:
        raise PolicyError("self-check: the policy answered nothing")
    arena = next((a for n, a in stage.arenas.items() if n == repo), None)
    arena = arena or next(iter(stage.arenas.values()))
    result = stage.pool.sandbox.run(
        Job(environment=arena.prepared.environment, argv=("sh", "-c", "echo selfplay"))
    )
    if result.exit_code != 0 or b"selfplay" not in result.output:
        raise SandboxError(
            f"self-check: a sandboxed `echo` ended with {result.exit_code}: "
            f"{result.output[-200:].decode(errors='replace')}"
        )
    task = known_bug(arena)
    clean = grade(task, reverse_patch(task.artifact.bug_patch), arena.runner)
    broken = grade(task, "", arena.runner)
    if not clean.resolved or broken.resolved:
        raise InfrastructureError(
            f"self-check: a known bug of {arena.prepared.name} was misgraded (gold patch: "
            f"{clean.reason or 'resolved'}; no patch: {broken.reason or 'resolved'})"
        )


def known_bug(arena: Arena) -> SolveTask:
    """The first valid procedural bug of the repository."""
    for number, (task, artifact) in enumerate(procedural_bugs(arena.injector, seed=0)):
        if number >= MAX_TRIES:
            break
        report = validate(artifact, arena.prepared.environment, arena.runner, task.limits)
        if report.verdict == "valid":
            return solve_task(arena.prepared.name, artifact, report, task)
    raise InfrastructureError(
        f"self-check: none of {MAX_TRIES} procedural bugs of {arena.prepared.name} was valid; "
        "is its test suite healthy? See `selfplay repos prepare`"
    )
