"""`selfplay <command> [hydra overrides]`: finds the command, maps errors to exit codes.

0 done / yes, 1 the answer is no, 2 wrong usage or input, 3 undecided or infrastructure failure.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from selfplay import __version__
from selfplay.errors import InfrastructureError, UserError

COMMANDS: dict[str, str] = {
    "doctor": "what works on this machine, what is missing and how to get it",
    "repos prepare": "build the sandboxed environment of a repository (or repo=all)",
    "inject": "N injection episodes on one repository; keeps the valid bugs",
    "validate": "consistency validation of one artifact: 0 valid, 1 invalid, 3 undecided",
    "grade": "grade one fix patch: 0 resolved, 1 not",
    "mine": "turn real bug-fix commits of a history into tasks",
    "warmstart": "supervised start of a small policy from validated procedural bugs",
    "train": "a self-play run; resume=auto continues it",
    "evaluate": "solver evaluation on a suite: resolved, pass@k, confidence intervals",
    "episode show": "stored episodes, turn by turn",
    "report": "a run, or several, as one HTML page: curves, coverage, bugs, episodes",
    "export": "corpus export: format=swebench|sft",
    "corpus verify": "replay an export: gold +1, empty -1, test-deleting -1",
}


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
    name, overrides = _split(argv)
    if name != "train" and "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError(f"`{name}` runs in one process; only `train` is started by torchrun")
    module = importlib.import_module(f"selfplay.commands.{name.replace(' ', '_')}")
    if any(word in ("-h", "--help") for word in overrides):
        sys.stdout.write(f"selfplay {name}: {COMMANDS[name]}\n\n{module.HELP.strip()}\n")
        return 0
    code: int = module.run(overrides)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    logging.basicConfig(
        level=os.environ.get("SELFPLAY_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # sandboxes share the cores
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        sys.stderr.write(f"selfplay: {error}\n")
        return 2
    except InfrastructureError as error:
        sys.stderr.write(f"selfplay: {error}\n")
        return 3
    except KeyboardInterrupt:
        sys.stderr.write("selfplay: interrupted; the run directory holds everything so far\n")
        return 130
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
