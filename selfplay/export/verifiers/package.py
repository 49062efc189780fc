"""The corpus as an environment package that verifiers, prime-rl and TRL load.

    NAME/pyproject.toml  README.md  NAME/{__init__,exam,single_turn,taskset}.py  NAME/suite.jsonl

A rollout is a solver's episode in one turn: its question and its verdict are ours (`serving/`), so
the package needs `selfplay` and its sandboxes where it runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfplay import __version__
from selfplay.export.verifiers.modules import EXAM, INIT, SINGLE_TURN, TASKSET
from selfplay.files import write_atomic

NAME = "selfplay_bugs"
MODULES = {"__init__": INIT, "exam": EXAM, "single_turn": SINGLE_TURN, "taskset": TASKSET}
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
dependencies = [
  "selfplay>={version}",
  "verifiers>=0.1.9,<0.5",
  "datasets>=3",
  "httpx>=0.27",
]

[tool.setuptools]
packages = ["{name}"]

[tool.setuptools.package-data]
{name} = ["suite.jsonl"]
"""
README = """\
# {dashed}

{number} bugs to be repaired, as an environment of [verifiers](https://pypi.org/project/verifiers/).
The code belongs to its authors:

| repository | licence |
|---|---|
{licences}

```bash
pip install selfplay ./{name}
vf-eval {name} -m MODEL --client.base-url http://127.0.0.1:8000/v1 --client.api-key-var KEY_VARIABLE
```
So with verifiers 0.4, whose `--env.taskset.task.` takes `suite`, `max-prompt-tokens` and `sandbox`;
with 0.1 to 0.3: `-b http://127.0.0.1:8000/v1 -k KEY_VARIABLE`, and
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
    for name, text in MODULES.items():
        write_atomic(folder / NAME / f"{name}.py", text.encode())
    shutil.copyfile(out / "suite.jsonl", folder / NAME / "suite.jsonl")
    return NAME
