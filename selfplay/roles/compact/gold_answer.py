"""How a solver would write the gold patch: the answer whose probability tells how likely it is.

The gold patch makes the answer only; the prompt is the one that any solver of the task sees. Of
the many spellings of one edit it is the shortest (`render_edit`), so its probability is a lower
bound of the solve rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from selfplay.bugs.patches.layers import apply_patch, read_file, reverse_patch, touched_files
from selfplay.compact.edits import render_edit
from selfplay.roles.compact.solver import CompactSolver, SolverPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldAnswer:
    """A solver's prompt and the text of the edit that undoes the bug."""

    prompt_ids: tuple[int, ...]
    text: str


def gold_answer(solver: CompactSolver, prompt: SolverPrompt) -> GoldAnswer | None:
    """None where the prompt does not show the place, and no edit of it is the gold patch."""
    tree = solver.prepared.environment.tree
    gold = reverse_patch(prompt.task.artifact.bug_patch)
    fixed = apply_patch(tree, prompt.sealed, gold)
    sources = {}
    for path in touched_files(gold):
        content = read_file(tree, fixed, path)
        if content is None or path not in prompt.listing.sources:
            return None
        sources[path] = content.decode("utf-8", "surrogateescape")
    try:
        text = render_edit(prompt.listing, sources)
    except ValueError:
        return None
    return GoldAnswer(prompt_ids=prompt.prompt_ids, text=text)
