"""The canary under `prove`: a test file of its own."""

from __future__ import annotations

from pathlib import Path

from selfplay.bugs.grading.canary import Canary, in_own_file
from selfplay.bugs.patches.layers import read_file
from selfplay.repo.languages.perl_functions import used_modules
from selfplay.types import Layer, SolveTask

_TAP = """\
use Test::More;
{loaded}fail '{name}';
done_testing;
"""


def tap_canary(task: SolveTask, layer: Layer, word: str, tree: Path) -> Canary:
    """A test file that loads what the oracle tests load: source that ends the program and prints
    results of its own at that moment does so here, too."""
    loaded = "".join(
        f"use {module} ();\n"
        for file in task.artifact.test_files
        for module in used_modules((read_file(tree, {}, file) or b"").decode("utf-8", "replace"))
    )
    return in_own_file(task, layer, f"{word}.t", _TAP.format(loaded=loaded, name=word), word)
