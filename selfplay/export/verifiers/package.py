"""The corpus as an environment package that verifiers, prime-rl and TRL load.

    NAME/pyproject.toml  README.md  NAME/__init__.py (`load_environment()`)  NAME/suite.jsonl

A rollout is a solver's episode in one turn: its question and its verdict are ours (`serving/`), so
the package needs `selfplay` and its sandboxes where it runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfplay import __version__
from selfplay.files import write_atomic

NAME = "selfplay_bugs"
PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dashed}"
version = "{version}"
description = "{number} bugs found by self-play, to be repaired: a verifiers environment"
readme = "README.md"
requires-python = ">=3.11"
keywords = ["single-turn", "code", "train", "eval"]
dependencies = ["selfplay>={version}", "verifiers>=0.1.9,<0.2", "datasets>=3"]

[tool.setuptools]
packages = ["{name}"]

[tool.setuptools.package-data]
{name} = ["suite.jsonl"]
"""
MODULE = '''\
"""{number} bugs to be repaired, as a verifiers environment; written by `selfplay export`.

A rollout is one question (failing tests and the code that they run) and one answer, a short edit.
It is graded in sandboxes of selfplay, as a training run of selfplay grades its own.
"""

import asyncio
import atexit
import contextlib
import dataclasses
from pathlib import Path

import verifiers as vf
from datasets import Dataset

SUITE = Path(__file__).with_name("suite.jsonl")


def load_environment(suite=None, num_tasks=None, max_prompt_tokens=640, sandbox="auto", **kwargs):
    """The environment. `suite`: another suite file; `sandbox`: auto, bubblewrap or docker."""
    from selfplay.commands.serve import open_exam
    from selfplay.config import SandboxConfig, ScaffoldConfig
    from selfplay.errors import InfrastructureError

    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    exam = stack.enter_context(
        open_exam(
            suite or SUITE,
            num_tasks,
            SandboxConfig(name=sandbox),
            scaffold=dataclasses.replace(ScaffoldConfig(), max_prompt_tokens=max_prompt_tokens),
        )
    )

    async def resolved(completion, info, state) -> float:
        """1.0 where the answer repairs the bug, else 0.0; a fault of the machine is an error."""
        said = completion[-1] if completion else {{}}
        text = str((said if isinstance(said, dict) else dict(said)).get("content") or "")
        try:
            verdict = await asyncio.to_thread(exam.judge_answer, info["bug_id"], text)
        except InfrastructureError as error:
            state["error"] = vf.InfraError(str(error))
            return 0.0
        state["reason"] = verdict.reason
        return verdict.reward

    rows = [
        {{"prompt": exam.messages(name), "answer": "", "info": {{"bug_id": name}}}}
        for name in exam.tasks
    ]
    return vf.SingleTurnEnv(
        dataset=Dataset.from_list(rows), rubric=vf.Rubric(funcs=[resolved]), **kwargs
    )
'''
README = """\
# {dashed}

{number} bugs to be repaired, as an environment of [verifiers](https://pypi.org/project/verifiers/).
The code belongs to its authors:

| repository | licence |
|---|---|
{licences}

```bash
pip install selfplay ./{name}
vf-eval {name} -m MODEL -b http://127.0.0.1:8000/v1 -k KEY_VARIABLE
```
`load_environment(suite=None, num_tasks=None, max_prompt_tokens=640, sandbox="auto")`. The reward is
1.0 for a repair by which every test that must pass passes, else 0.0.
"""


def write_verifiers(out: Path, number: int, environments: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the package beside the suite that it copies; its folder's name in `out`."""
    names = {"name": NAME, "dashed": NAME.replace("_", "-"), "version": __version__}
    licences = "\n".join(
        f"| {name} | {told.get('license') or 'unknown'} |"
        for name, told in sorted(environments.items())
    )
    told = {**names, "number": number, "licences": licences}
    folder = out / NAME
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "pyproject.toml", PYPROJECT.format(**told).encode())
    write_atomic(folder / "README.md", README.format(**told).encode())
    write_atomic(folder / NAME / "__init__.py", MODULE.format(**told).encode())
    shutil.copyfile(out / "suite.jsonl", folder / NAME / "suite.jsonl")
    return NAME
