"""The corpus as Harbor's task folders: an instruction, an image to build, tests, a solution.

    NAME/task.toml  instruction.md  environment/{Dockerfile,requirements.txt,repo/}
         tests/{test.sh,grade.py,...}  solution/{solve.sh,gold.diff,fixed/}

The image holds what a solver sees (`sealed_layer`); tests and solution come in afterwards, as
Harbor does it. `tests/grade.py` puts tests, their helpers and what steers their runner back, runs
the bug's script and asks for every test to pass; our own grading defends itself further
(docs/validation.md), and decides where the two differ.
"""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

from selfplay.bugs.leaks import list_files
from selfplay.bugs.patches.diffs import reverse_patch, touched_files
from selfplay.bugs.patches.layers import file_state, read_file
from selfplay.bugs.patches.paths import is_hook_path, is_test_path
from selfplay.bugs.sealing import sealed_layer
from selfplay.bugs.test_runs.scripts import script_runner
from selfplay.corpus.suite import SuiteTask, to_line
from selfplay.repo.discovery.test_names import test_names
from selfplay.sandbox.base import Environment
from selfplay.types import SolveTask

GRADE = Path(__file__).with_name("harbor_grade.py")
PACKAGES = "/opt/selfplay/packages"
FIXED, SCRIPTS = "solution/fixed/", ("solution/solve.sh", "tests/test.sh")
TASK = """\
schema_version = "1.1"

[task]
name = {name}
description = {description}
keywords = ["selfplay", "bug"]

[metadata]
category = "software-engineering"
repository = {repo}
source = {source}
license = {license}
bug_id = {bug_id}

[agent]
timeout_sec = 1800.0

[verifier]
timeout_sec = {verifier_s}

[environment]
build_timeout_sec = 600.0
cpus = 1
memory_mb = 4096
storage_mb = 10240
"""
DOCKERFILE = """\
# The packages are those that the bug was found with; give another base with --build-arg BASE=...
ARG BASE={base}
FROM $BASE
USER root
{setup}COPY repo /testbed
WORKDIR /testbed
{variables}"""
PYTHON = """\
COPY requirements.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --no-deps --target {packages} -r /tmp/requirements.txt \\
 && (command -v python || ln -s "$(command -v python3)" /usr/local/bin/python)
"""
PERL = """\
RUN command -v prove && command -v python3 || \\
    (apt-get update && apt-get install -y --no-install-recommends perl python3)
"""
TEST = """\
#!/bin/bash
# Harbor copies this folder to /tests and reads the reward from /logs/verifier/reward.txt.
exec python3 "$(dirname "$0")/grade.py" "${LOGS:-/logs/verifier}"
"""
SOLVE = """\
#!/bin/bash
# Puts back what the bug changed; gold.diff shows it. Slim images have no `patch`.
set -e
cp -R "$(dirname "$0")/fixed/." /testbed/
"""


def write_task(task: SuiteTask, environment: Environment, folder: Path) -> None:
    """One task folder, whole or not at all. Raises `PatchError` where a patch does not apply."""
    partial = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    solve = task.solve_task
    for name in ("environment", "tests", "solution/fixed"):
        (partial / name).mkdir(parents=True)
    write_tree(environment.tree, solve, partial / "environment" / "repo")
    requirements = "".join(f"{line}\n" for line in installed(environment))
    (partial / "environment" / "requirements.txt").write_text(requirements)
    (partial / "environment" / "Dockerfile").write_text(dockerfile(environment, solve))
    (partial / "instruction.md").write_bytes(instruction(solve).encode("utf-8", "surrogateescape"))
    (partial / "task.toml").write_text(task_toml(task))
    files = {**tests_of(environment, task), **solution_of(environment.tree, solve)}
    for name, content in files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
        fixed = name.removeprefix(FIXED)
        runs = name in SCRIPTS or (
            fixed != name and file_state(environment.tree, {}, fixed).executable
        )
        (partial / name).chmod(0o755 if runs else 0o644)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_tree(tree: Path, task: SolveTask, target: Path) -> None:
    """The files that a solver sees."""
    layer = sealed_layer(tree, task.artifact)
    shutil.copytree(tree, target, symlinks=True)
    for path, change in layer.items():
        place = target / path
        place.unlink(missing_ok=True)
        if change.content is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(change.content)
            place.chmod(0o755 if change.executable else 0o644)


def tests_of(environment: Environment, suite_task: SuiteTask) -> dict[str, bytes]:
    """{path in the folder: content} of what grades a fix, and the suite's line, to be read back."""
    tree, task = environment.tree, suite_task.solve_task
    artifact = task.artifact
    buggy = set(touched_files(artifact.bug_patch))
    ours = {*artifact.test_files, *touched_files(artifact.weakening_patch)}
    names = test_names(tree)
    names_kept = [
        path
        for path in sorted({*ours, *list_files(tree)})
        if path in ours
        or ((is_test_path(path, ours, names) or is_hook_path(path)) and path not in buggy)
    ]
    links = {p: str((tree / p).readlink()) for p in names_kept if (tree / p).is_symlink()}
    kept = {path: file_state(tree, {}, path) for path in names_kept if path not in links}
    request = {
        "FAIL_TO_PASS": list(task.fail_to_pass),
        "PASS_TO_PASS": list(task.pass_to_pass),
        "original": {
            path: None if state.content is None else base64.b64encode(state.content).decode()
            for path, state in kept.items()
        },
        "links": links,
        "executable": [path for path, state in kept.items() if state.executable],
        "timeout_s": task.limits.script_timeout_s,
        "line": to_line(suite_task),
    }
    texts = {"test_script.sh": artifact.test_script, "test_parser.py": artifact.test_parser}
    return {
        "tests/test.sh": TEST.encode(),
        "tests/grade.py": GRADE.read_bytes(),
        "tests/request.json": json.dumps(request, indent=1).encode() + b"\n",
        **{
            f"tests/{name}": text.encode("utf-8", "surrogateescape") for name, text in texts.items()
        },
    }


def solution_of(tree: Path, task: SolveTask) -> dict[str, bytes]:
    """{path in the folder: content} of the reference solution."""
    bug = task.artifact.bug_patch
    script, files = SOLVE, {}
    for path in touched_files(bug):
        content = read_file(tree, {}, path)
        if content is None:
            script += f"rm -f -- {shlex.quote(f'/testbed/{path}')}\n"
        else:
            files[f"{FIXED}{path}"] = content
    gold = reverse_patch(bug).encode("utf-8", "surrogateescape")
    return {"solution/solve.sh": script.encode(), "solution/gold.diff": gold, **files}


def installed(environment: Environment) -> list[str]:
    """`name==version` of the packages that the repository's tests run with."""
    folders = [host for host, inside in environment.mounts.items() if inside == PACKAGES]
    lock = [Path(folder).parent / "requirements.lock" for folder in folders]
    if lock and lock[0].is_file():
        return [line for line in lock[0].read_text().splitlines() if "==" in line]
    return sorted(f"{d.name}=={d.version}" for d in distributions(path=folders))


IMAGES = {"tap": ("debian:bookworm-slim", PERL)}
"""{test framework: (image, what is installed in it)}; any other has a Python's."""


def dockerfile(environment: Environment, task: SolveTask) -> str:
    """The image of what a solver sees: of the repository's own where it has one."""
    kind = script_runner(task.artifact.test_script)
    python = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    usual = (python, PYTHON.format(packages=PACKAGES))
    image = environment.image
    base, setup = (image, "") if image else IMAGES.get(kind or "", usual)
    variables = {k: v for k, v in environment.variables.items() if k != "PYTHONPYCACHEPREFIX"}
    lines = "".join(f"ENV {key}={quoted(value)}\n" for key, value in sorted(variables.items()))
    return DOCKERFILE.format(base=base, setup=setup, variables=lines)


def quoted(value: str) -> str:
    """A value as a Dockerfile's ENV takes it literally: it would expand what follows a `$`."""
    for sign in ("\\", '"', "$"):
        value = value.replace(sign, f"\\{sign}")
    return f'"{value}"'


def instruction(task: SolveTask) -> str:
    """What the agent is told: the issue text, else the oracle tests as their patch."""
    if task.problem_statement:
        told = task.problem_statement
    else:
        patch = reverse_patch(task.artifact.weakening_patch)
        told = f"These changes of the tests must pass:\n\n```diff\n{patch}```\n"
    files = " ".join(shlex.quote(name) for name in task.artifact.test_files)
    return (
        "The repository at /testbed has a bug. Repair its source code; tests and the configuration "
        f"of their runner are put back before grading.\n\n{told}\nTests: {files}\n"
    )


def task_toml(task: SuiteTask) -> str:
    """The task's settings; TOML's basic strings are written as JSON's."""
    solve, source = task.solve_task, json.dumps(task.environment.get("source"), sort_keys=True)
    values = {
        "name": f"selfplay/{solve.bug_id.lower()}",
        "description": f"A bug in {solve.repo}: {len(solve.fail_to_pass)} tests fail",
        "repo": solve.repo,
        "source": f"{task.base_commit} {source}",
        "license": str(task.environment.get("license") or "unknown"),
        "bug_id": solve.bug_id,
    }
    quoted = {key: json.dumps(value) for key, value in values.items()}
    return TASK.format(**quoted, verifier_s=float(max(60.0, 3 * solve.limits.script_timeout_s)))
