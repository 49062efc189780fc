"""Whose process it is: users that are mere numbers, and folders that are not theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfplay.commands.attempt_log import begin
from selfplay.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
A_NUMBER = """
import pwd

def nobody(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")

pwd.getpwuid = nobody
from selfplay.commands.process import set_up

set_up()
import altair, getpass
from pathlib import Path
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
print(getpass.getuser(), Path.home(), default_cache_dir())
"""


@pytest.mark.parametrize(("cache", "home"), [({}, "/"), ({"SELFPLAY_CACHE": "/tmp/c"}, "/tmp/c")])
def test_a_user_without_an_entry_has_a_name_and_a_home(cache: dict[str, str], home: str) -> None:
    """As containers are started on OpenShift, or by `docker run --user 54321`: torch, vLLM and
    altair ended at their import."""
    done = subprocess.run(
        [sys.executable, "-c", A_NUMBER],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **cache},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    name, told, place = done.stdout.split()
    assert name == f"uid{os.geteuid()}" and told == home and name in place


def test_an_evaluation_whose_results_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "e.json"
    with pytest.raises(UserError, match=f"out={out}: cannot be written"):
        begin(out, out.with_suffix(".attempts.jsonl"))


PYTHON_314 = """
import argparse, sys

add = argparse.ArgumentParser.add_argument

def check(self, action):
    if action.help and "%" in action.help:
        pass

def add_and_check(self, *words, **more):
    action = add(self, *words, **more)
    self._check_help(action)
    return action

if not hasattr(argparse.ArgumentParser, "_check_help"):
    argparse.ArgumentParser._check_help = check
    argparse.ArgumentParser.add_argument = add_and_check
from selfplay.cli import main

sys.exit(main(["compare", "--cfg", "job", "a=x", "b=y"]))
"""


def test_help_texts_are_read_when_they_are_shown() -> None:
    """As Python 3.14 reads them, each when it is added: Hydra has one that is no text until then,
    and no command started."""
    done = subprocess.run(
        [sys.executable, "-c", PYTHON_314],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "a: x" in done.stdout, done.stderr
