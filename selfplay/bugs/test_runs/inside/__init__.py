"""Programs that run beside a repository's tests in the sandbox, self-contained, and how they get
there."""

from __future__ import annotations

from pathlib import Path

from selfplay.types import FileChange, Layer

INSIDE = Path(__file__).parent
PLUGIN = "selfplay_traces"
PROGRAMS = {
    PLUGIN: "recorder",
    "selfplay_events": "events",
    "selfplay_tracers": "tracers",
    "selfplay_tail": "tail",
    "selfplay_values": "values",
}
"""Names inside the sandbox, and the modules of this folder that they are."""


def program_layer() -> Layer:
    """The recorder and what it stands on, in the tree of its run."""
    return {
        f"{name}.py": FileChange(content=(INSIDE / f"{module}.py").read_bytes())
        for name, module in PROGRAMS.items()
    }
