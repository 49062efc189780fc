"""Start-up self-check before step 1 (architecture.md, decision 10): fail now, not in an hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from selfplay.bug_sources.commit_trees import split_name
from selfplay.bugs.artifact import solve_task
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import reverse_patch
from selfplay.bugs.validation.validate import validate
from selfplay.commands.output import say
from selfplay.config import ScaffoldConfig
from selfplay.curriculum.compact import CompactRoles
from selfplay.curriculum.evaluation import LeftOut
from selfplay.curriculum.scaffold import RepoContext, RolloutContext
from selfplay.errors import InfrastructureError, PolicyError, SandboxError, UserError
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.agentic.workspace import audit_sandbox
from selfplay.roles.compact.injector import CompactInjector
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Job, Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.types import SolveTask
from selfplay.warmstart.procedural_answers import procedural_bugs

MAX_TRIES = 40


def self_check(context: RolloutContext, repos: Sequence[str], config: ScaffoldConfig) -> None:
    """One generation; on each repository one sandbox command, one known bug graded both ways, and
    the leak audit of its solver's sandbox.

    Raises `InfrastructureError` (exit code 3) that names the part that does not work.
    """
    prompt = context.policy.tokenizer.render("", "Say one word.")
    (answers,) = context.policy.sample([SampleRequest(prompt_ids=prompt, max_new_tokens=4)])
    if len(answers) != 1 or not answers[0].token_ids:
        raise PolicyError("self-check: the policy answered nothing")
    chosen = [context.repo_contexts[name] for name in repos]
    for repo in chosen:
        check_sandbox(context, repo)
    context.pool.map(lambda repo: check_grading(context, repo, config), chosen)


def check_sandbox(context: RolloutContext, repo: RepoContext) -> None:
    """One command in a repository's sandbox. Raises `SandboxError`."""
    environment = repo.prepared.environment
    result = context.pool.sandbox.run(
        Job(environment=environment, argv=("sh", "-c", "echo selfplay"))
    )
    if result.exit_code != 0 or b"selfplay" not in result.output:
        raise SandboxError(
            f"self-check: a sandboxed `echo` in {repo.prepared.name} ended with "
            f"{result.exit_code}: {result.output[-200:].decode(errors='replace')}"
        )


def check_grading(context: RolloutContext, repo: RepoContext, config: ScaffoldConfig) -> None:
    """A known bug of a repository graded with its gold patch and with none. Raises
    `InfrastructureError`."""
    task = known_bug(CompactRoles.on(repo, context.policy.tokenizer, config).injector)
    clean = grade(task, reverse_patch(task.artifact.bug_patch), repo.runner)
    broken = grade(task, "", repo.runner)
    if not clean.resolved or broken.resolved:
        raise InfrastructureError(
            f"self-check: a known bug of {repo.prepared.name} was misgraded (gold patch: "
            f"{clean.reason or 'resolved'}; no patch: {broken.reason or 'resolved'})"
        )
    check_sealing(context, repo.prepared, task)


def check_gold(context: RolloutContext, tasks: Sequence[SolveTask]) -> None:
    """The first task of each project graded with its gold patch and with none. Raises `UserError`
    for one that does not hold here."""
    first: dict[str, SolveTask] = {}
    for task in tasks:
        first.setdefault(split_name(task.repo)[0], task)

    def check(task: SolveTask) -> None:
        runner = context.repo_contexts[task.repo].runner
        clean = grade(task, reverse_patch(task.artifact.bug_patch), runner)
        broken = grade(task, "", runner)
        if not clean.resolved or broken.resolved:
            raise UserError(
                f"{task.bug_id}: does not hold here (gold patch: {clean.reason or 'resolved'}; no "
                f"patch: {broken.reason or 'resolved'}); `selfplay corpus verify out=SUITE "
                "kept=FILE` writes a suite of those that do"
            )

    context.pool.map(check, first.values())


def check_tasks(context: RolloutContext, tasks: Iterable[SolveTask]) -> None:
    """The leak audit on the first task of each repository. Raises `InfrastructureError`."""
    for why in leaks_of(tasks, prepared_repos(context), context.pool).values():
        raise InfrastructureError(why)


def without_leaks(
    tasks: Sequence[SolveTask], repos: Mapping[str, PreparedRepo], pool: SandboxPool
) -> tuple[list[SolveTask], dict[str, LeftOut]]:
    """Held-out tasks that can be played here, and the repositories with the others: a project
    may be installed beside this machine's own Python, where every solver could read it.

    What is left out is told. Raises `InfrastructureError` where none is left.
    """
    leaky = leaks_of(tasks, repos, pool)
    kept = [task for task in tasks if task.repo not in leaky]
    if leaky and not any(task.repo in repos for task in kept):
        raise InfrastructureError(next(iter(leaky.values())))
    counts = Counter(task.repo for task in tasks)
    for name, why in leaky.items():
        say(f"{name}: left out with its {counts[name]} bugs: {why}")
    return kept, {n: {"num_tasks": counts[n], "reason": why} for n, why in leaky.items()}


def prepared_repos(context: RolloutContext) -> dict[str, PreparedRepo]:
    """{name: repository} of all that are played."""
    return {name: repo.prepared for name, repo in context.repo_contexts.items()}


def leaks_of(
    tasks: Iterable[SolveTask], repos: Mapping[str, PreparedRepo], pool: SandboxPool
) -> dict[str, str]:
    """{repository: what the leak audit on its first task finds}, of those where it finds
    something."""
    first: dict[str, SolveTask] = {}
    for task in tasks:
        if task.repo in repos:
            first.setdefault(task.repo, task)
    found = pool.map(lambda task: leak_of(pool.sandbox, repos[task.repo], task), first.values())
    return {name: why for name, why in zip(first, found, strict=True) if why}


def check_sealing(context: RolloutContext, prepared: PreparedRepo, task: SolveTask) -> None:
    """The leak audit on one task. Raises `InfrastructureError` that names file and line."""
    why = leak_of(context.pool.sandbox, prepared, task)
    if why:
        raise InfrastructureError(why)


def leak_of(sandbox: Sandbox, prepared: PreparedRepo, task: SolveTask) -> str:
    """What the leak audit finds, with file, line and remedy; "" where nothing."""
    leaks = audit_sandbox(sandbox, prepared.environment, task.artifact)
    if not leaks:
        return ""
    return (
        f"leak audit of {prepared.name}, bug {task.bug_id}: a solver could read the answer in "
        f"{'; '.join(leaks[:5])}; take such files out of the repository (or its image), or "
        "uninstall the project from this machine's Python"
    )


def known_bug(injector: CompactInjector) -> SolveTask:
    """The first valid procedural bug of the repository."""
    prepared = injector.prepared
    for number, (task, artifact) in enumerate(procedural_bugs(injector, seed=0)):
        if number >= MAX_TRIES:
            break
        report = validate(artifact, prepared.environment, injector.runner, task.limits)
        if report.verdict == "valid":
            return solve_task(prepared.name, artifact, report, task.limits)
    raise InfrastructureError(
        f"self-check: none of {MAX_TRIES} procedural bugs of {prepared.name} was "
        "valid; is its test suite healthy? See `selfplay repos prepare`"
    )
