"""The corpus in SWE-smith's format: `patch` is the *bug*, and profiles say how tests are run.

`tasks.jsonl` has the fields of SWE-smith's data set; `profiles.py`, imported after `swesmith`,
registers a profile for each repository. Its log parser is one of ours, so that ids are as here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.bugs.test_runs.scripts import parser_runner, parser_source
from selfplay.corpus.suite import SuiteTask
from selfplay.files import encode_json, write_atomic

PROFILE_HEAD = '''\
"""SWE-smith profiles of the repositories in tasks.jsonl, written by `selfplay export`.

    import profiles    # beside tasks.jsonl; needs the package swesmith

Images are named as SWE-smith names them, with `selfplay` as the organisation; each holds the
repository at /testbed with a branch for each instance: the bug, then its tests taken out.
"""

from dataclasses import dataclass

from swesmith.profiles import registry
from swesmith.profiles.base import RepoProfile

PARSERS = {parsers}


def run_parser(runner, log):
    """The results of a log, by SWE-bench's names of them."""
    module = {{"__name__": "parser"}}
    exec(PARSERS[runner], module)  # our own shipped parser, whose text stands above
    return {{test: status.upper() for test, status in module["parse"](log).items()}}


@dataclass
class SelfplayProfile(RepoProfile):
    """What the profiles below share: each instance says itself how its tests are run."""

    org_dh: str = "selfplay"
    org_gh: str = "selfplay"
    runner = "pytest"

    def get_test_cmd(self, instance, f2p_only=False):
        return f"bash <<'END_OF_TEST_SCRIPT'\\n{{instance['test_script']}}END_OF_TEST_SCRIPT", []

    def get_test_files(self, instance):
        tests = instance["FAIL_TO_PASS"], instance["PASS_TO_PASS"]
        first, second = ({{test.split("::", 1)[0] for test in part}} for part in tests)
        return sorted(first), sorted(second)

    def log_parser(self, log):
        return run_parser(self.runner, log)
'''
PROFILE = """

@dataclass
class {cls}(SelfplayProfile):
    owner: str = {owner!r}
    repo: str = {repo!r}
    commit: str = {commit!r}
    runner = {runner!r}


registry.register_profile({cls})
"""
_GITHUB = re.compile(r"github\.com[:/](?P<owner>[\w.-]+)/(?P<repo>[\w.-]+?)(\.git)?/?$")


def write_swesmith(tasks: Sequence[SuiteTask], out: Path) -> list[SuiteTask]:
    """Write both files; the bugs that could be told. Left out are those whose parser is not a
    shipped one: it is untrusted text, and a profile is code that its reader runs."""
    told = [t for t in tasks if parser_runner(t.solve_task.artifact.test_parser)]
    lines = [encode_json(to_instance(task)) + b"\n" for task in told]
    write_atomic(out / "tasks.jsonl", b"".join(lines))
    write_atomic(out / "profiles.py", profiles(told).encode())
    return told


def to_instance(task: SuiteTask) -> dict[str, Any]:
    """One line. `instance_id` begins with the profile's name, as SWE-smith looks it up there."""
    owner, repo, commit = profile_of(task)
    name, solve = f"{owner}__{repo}.{commit[:8]}", task.solve_task
    return {
        "instance_id": f"{name}.{solve.bug_id.replace('.', '-')}",
        "repo": f"selfplay/{name}",
        "patch": solve.artifact.bug_patch,
        "FAIL_TO_PASS": list(solve.fail_to_pass),
        "PASS_TO_PASS": list(solve.pass_to_pass),
        "image_name": f"selfplay/swesmith.x86_64.{owner}_1776_{repo}.{commit[:8]}".lower(),
        "problem_statement": solve.problem_statement,
        "strategy": str(solve.artifact.meta.get("strategy", "selfplay")),
        "test_script": solve.artifact.test_script,
        "license": str(task.environment.get("license", "")),
        "weakening_patch": solve.artifact.weakening_patch,
        "environment": dict(task.environment),
    }


def profile_of(task: SuiteTask) -> tuple[str, str, str]:
    """(owner, repository, commit of 40 digits): those of its git source where there is one."""
    source: Mapping[str, Any] = task.environment.get("source") or {}
    fields: Mapping[str, Any] = next(iter(source.values()), {})
    found = _GITHUB.search(str(fields.get("url", "")))
    owner, repo = (found["owner"], found["repo"]) if found else ("selfplay", task.solve_task.repo)
    commit = str(fields.get("commit") or task.environment.get("commit") or "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        commit = hashlib.sha1(f"{task.solve_task.repo} {task.base_commit}".encode()).hexdigest()
    return owner, re.sub(r"[^\w-]", "-", repo), commit


def profiles(tasks: Sequence[SuiteTask]) -> str:
    """The text of profiles.py: one class for each repository and way of running its tests."""
    found: dict[tuple[str, str, str], str] = {}
    for task in tasks:
        runner = parser_runner(task.solve_task.artifact.test_parser) or ""
        found.setdefault(profile_of(task), runner)
    parsers = {runner: parser_source(runner) for runner in sorted(set(found.values()))}
    text = PROFILE_HEAD.format(parsers=repr(parsers))
    for number, ((owner, repo, commit), runner) in enumerate(sorted(found.items()), start=1):
        text += PROFILE.format(
            cls=f"Profile{number}", owner=owner, repo=repo, commit=commit, runner=runner
        )
    return text
