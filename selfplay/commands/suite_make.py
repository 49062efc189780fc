"""`selfplay suite make`: single-file programs with tests (QuixBugs' layout) become a suite."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from selfplay.bug_sources.python_programs import Program, read_programs, write_history
from selfplay.bug_sources.reference_programs import task_folders
from selfplay.commands import mine
from selfplay.commands.output import say
from selfplay.commands.suite_of_programs import make_of_programs
from selfplay.config import MineConfig, SuiteMakeConfig
from selfplay.errors import UserError

CONFIG, SCHEMA = "suite_make", SuiteMakeConfig
HELP = """
keys: programs=DIR (python_programs/, correct_python_programs/ and json_testcases/ or
      python_testcases/), out=DIR (suite.jsonl, suite.jsonl.log, and programs/: the history that the
      suite stands on), script_timeout_s=60, sandbox=..., json=true
      or programs known by what they do: NAME/reference, NAME/docs/, NAME/tests.jsonl
One bug for each program: the broken version against the correct one, its tests as the oracle. Every
kept bug is validated and has passed the round trip. The same command goes on where it was killed.
"""


def run(config: SuiteMakeConfig) -> int:
    """Make it; exit codes as `mine`: 0 when there is a bug, 1 when none, 3 on undecided ones."""
    source, out = Path(config.programs), Path(config.out)
    folders = task_folders(source)
    if folders:
        return make_of_programs(config, folders)
    programs = read_programs(source)
    history = out / "programs"
    try:
        write_history(source, programs, history)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    code = mine.run(
        MineConfig(
            repo=str(history),
            out=str(out / "suite.jsonl"),
            script_timeout_s=config.script_timeout_s,
            sandbox=config.sandbox,
            repos=config.repos,
            json=config.json,
        )
    )
    tell(programs)
    return code


def tell(programs: list[Program]) -> None:
    """Which programs are in no commit, and why."""
    dropped = Counter(program.dropped for program in programs if program.dropped)
    say(f"{sum(not p.dropped for p in programs)} programs, each a commit")
    if dropped:
        say("left out: " + ", ".join(f"{why} {number}" for why, number in dropped.most_common()))
