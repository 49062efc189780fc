"""`selfplay <command> [hydra overrides]`: finds the command, maps errors to exit codes.

0 done / yes, 1 the answer is no, 2 wrong usage or input, 3 undecided or infrastructure failure.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from selfplay import __version__
from selfplay.commands.process import guarded, set_up
from selfplay.errors import UserError

COMMANDS: dict[str, str] = {
    "doctor": "what works on this machine, what is missing and how to get it",
    "repos prepare": "build the sandboxed environment of a repository (or repo=all)",
    "inject": "N injection episodes on one repository; keeps the valid bugs",
    "validate": "consistency validation of one artifact: 0 valid, 1 invalid, 3 undecided",
    "grade": "grade one fix patch: 0 resolved, 1 not",
    "suite make": "single-file programs with tests (QuixBugs' layout) become a suite",
    "mine": "turn real bug-fix commits of a history into tasks",
    "traces": "what tests run, event by event: traces, questions, scratchpads",
    "warmstart": "supervised start of a small policy from validated procedural bugs",
    "train": "a self-play run; resume=auto continues it",
    "evaluate": "solver evaluation on a suite: resolved, pass@k, confidence intervals",
    "compare": "what changed between two evaluations: compare A B",
    "episode show": "stored episodes, turn by turn",
    "report": "a run, or several, as one HTML page: curves, coverage, bugs, episodes",
    "export": "corpus export: format=swebench|swesmith|harbor|verifiers|sft|dpo|hf",
    "serve": "the bugs of a suite as an environment behind HTTP (OpenEnv)",
    "corpus verify": "replay an export: gold +1, empty -1, test-deleting -1",
}

FLAGS = """Hydra's options: -m (sweep: key=a,b), --cfg job [--resolve], --info, --config-dir DIR,
--config-name NAME, -sc install=bash; hydra.* overrides. See docs/hydra.md."""


def usage() -> str:
    """The overview that `selfplay --help` prints."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: selfplay <command> [key=value ...]     (Hydra overrides)",
            "",
            *lines,
            "",
            "selfplay <command> --help tells the keys of one command; json=true prints one JSON",
            "document on stdout. Exit codes: 0 yes/done, 1 no, 2 wrong input, 3 undecided/fault.",
        ]
    )


def _split(argv: Sequence[str]) -> tuple[str, list[str]]:
    for length in (2, 1):
        name = " ".join(argv[:length])
        if name in COMMANDS:
            return name, list(argv[length:])
    known = ", ".join(COMMANDS)
    raise UserError(f"unknown command {' '.join(argv[:1])!r}; one of: {known}")


def _dispatch(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage() + "\n")
        return 0 if argv else 2
    if argv[0] == "--version":
        sys.stdout.write(f"selfplay {__version__}\n")
        return 0
    if argv[0] in ("-sc", "--shell-completion"):
        return _complete(argv)
    name, words = _split(argv)
    if name != "train" and "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"`{name}` runs in one process; only `train` is started by torchrun")
    if any(word in ("-h", "--help") for word in words):
        module = importlib.import_module(f"selfplay.commands.{name.replace(' ', '_')}")
        sys.stdout.write(f"selfplay {name}: {COMMANDS[name]}\n\n{module.HELP.strip()}\n\n{FLAGS}\n")
        return 0
    if name == "repos prepare":
        words = ["repo=all" if word == "repos=all" else word for word in words]
    from selfplay.commands.application import launch

    return launch(name.replace(" ", "_"), words)


def _complete(argv: Sequence[str]) -> int:
    """What Hydra's completion asks: the names of commands here, the rest of its own knowledge."""
    from selfplay.commands.application import launch

    line = os.environ.get("COMP_LINE", "")
    if any(word.startswith("query=") for word in argv):
        typed = [*line.split()[1:], *([""] if line.endswith(" ") else [])]
        name = next((n for n in COMMANDS if typed[: len(n.split())] == n.split()), None)
        length = len(name.split()) if name else 0
        if name is None or len(typed) == length:
            words = [n.split() for n in COMMANDS if n.startswith(" ".join(typed))]
            choices = {w[len(typed) - 1] for w in words if len(w) >= len(typed) > 0}
            sys.stdout.write("\n".join(sorted(choices)) + "\n")
            return 0
        os.environ["COMP_LINE"] = " ".join(["selfplay", *typed[length:]])
        return launch(name.replace(" ", "_"), argv)
    return launch("doctor", argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    set_up()
    return guarded(lambda: _dispatch(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
