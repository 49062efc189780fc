"""What an agent finds in its sandbox: a tree that is a git repository, and files put beside it.

The injector sees the repository's real history where there is one; the solver a fresh repository
with one commit (docs/validation.md). Git runs inside the sandbox, never on a tree of the model's.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from selfplay.bugs.leaks import AUDIT_TIMEOUT_S, Secret, find_leaks
from selfplay.bugs.sealing import Sealed, seal
from selfplay.errors import SandboxError
from selfplay.repo.sources.git import git
from selfplay.sandbox.base import Environment, Helper, Job, Quota, Sandbox
from selfplay.sandbox.session.session import FileProblem, Session
from selfplay.types import BugArtifact, Layer

HISTORY = "/opt/selfplay/history"
SETUP_TIMEOUT_S = 120.0
SLACK_S = 900.0
"""A session outlives its episode's wall time by this: the loop ends it, not the clock."""
VARIABLES = {
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "TERM": "dumb",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
}
_BEGIN = """\
command -v git >/dev/null || exit 0
set -e
git init -q -b main --template= .
git config user.name selfplay
git config user.email selfplay@localhost
git config core.logAllRefUpdates false
git config gc.auto 0
"""
_PAST = """\
mkdir -p .git/objects/info
echo {objects} > .git/objects/info/alternates
git update-ref refs/heads/main {commit}
git reset -q
"""
_COMMIT = """\
git add -A -f
git diff --cached --quiet 2>/dev/null || git commit -q --no-verify -m {message}
git config core.logAllRefUpdates true
"""


def open_injector(
    sandbox: Sandbox,
    environment: Environment,
    history: Path | None,
    files: Mapping[str, str],
    wall_s: float,
) -> Session:
    """The original tree, with its history where there is one; `files` are written by their paths.

    Raises `SandboxError`.
    """
    script = _BEGIN
    if history is not None:
        mounts = {**environment.mounts, str(history): HISTORY}
        digest = f"{environment.digest}-history"
        environment = replace(environment, mounts=mounts, digest=digest)
        commit = git("rev-parse", "HEAD^{commit}", cwd=history).strip()
        script += _PAST.format(objects=f"{HISTORY}/objects", commit=shlex.quote(commit))
    script += _COMMIT.format(message="'Working tree'")
    return _open(sandbox, environment, {}, script, files, wall_s)


def open_solver(
    sandbox: Sandbox,
    sealed: Sealed,
    files: Mapping[str, str],
    wall_s: float,
    helper: Helper | None = None,
) -> Session:
    """The sealed tree as a repository of one commit. Raises `SandboxError`."""
    script = _BEGIN + _COMMIT.format(message="'Initial commit'")
    return _open(sandbox, sealed.environment, sealed.layer, script, files, wall_s, helper)


def audit_sandbox(
    sandbox: Sandbox,
    environment: Environment,
    artifact: BugArtifact,
    told: Mapping[bytes, str] | None = None,
) -> list[str]:
    """What a solver of this bug could read the answer from, in a sandbox just like its own.

    told    {line: file} that must not be found beside those that the bug removed. Raises
            `SandboxError`.
    """
    sealed = seal(environment, artifact)
    session = open_solver(sandbox, sealed, {}, AUDIT_TIMEOUT_S)
    try:
        secret = Secret.of(environment.tree, artifact, told)
        return find_leaks(session, sealed.environment, secret)
    finally:
        session.close()


def _open(
    sandbox: Sandbox,
    environment: Environment,
    layer: Layer,
    script: str,
    files: Mapping[str, str],
    wall_s: float,
    helper: Helper | None = None,
) -> Session:
    job = Job(
        environment=environment,
        argv=(),
        layer=layer,
        variables=VARIABLES,
        quota=Quota(timeout_s=wall_s + SLACK_S),
        helper=helper,
    )
    session = Session(sandbox, job)
    try:
        done = session.run(f"(\n{script})", SETUP_TIMEOUT_S)
        if done.failure:
            raise SandboxError(f"the agent's repository could not be made: {done.failure}")
        for path, text in files.items():
            session.write(path, text.encode("utf-8", "surrogateescape"))
    except FileProblem as problem:
        session.close()
        raise SandboxError(f"the agent's files could not be written: {problem}") from problem
    except BaseException:
        session.close()
        raise
    return session
