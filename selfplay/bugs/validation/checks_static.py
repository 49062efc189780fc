"""The checks that need no run: test files, scope, forbidden content (docs/validation.md)."""

from __future__ import annotations

from pathlib import Path

from selfplay.bugs.patches.diffs import check_path, touched_files
from selfplay.bugs.patches.layers import apply_patch, read_file
from selfplay.bugs.patches.paths import is_hook_path, is_source_path
from selfplay.bugs.validation.check_forbidden import forbidden_content
from selfplay.bugs.validation.validation_state import CheckFailed, ValidationState
from selfplay.errors import PatchError
from selfplay.repo.discovery.test_names import test_names
from selfplay.repo.languages.registry import language_of
from selfplay.types import Layer


def check_test_files(state: ValidationState) -> str:
    """Every listed file exists in the original; the weakening touches listed files alone."""
    tree, artifact = state.environment.tree, state.artifact
    if not artifact.test_files:
        raise CheckFailed("no_test_files", "test_files.txt lists no file")
    for path in artifact.test_files:
        try:
            content = read_file(tree, {}, check_path(path))
        except PatchError as error:
            raise CheckFailed("unsafe_path", f"test_files.txt: {error}") from None
        if content is None:
            raise CheckFailed("test_file_missing", f"{path}: not a file of the original tree")
    if not artifact.weakening_patch.strip():
        raise CheckFailed("weakening_empty", "test_weaken.diff changes nothing")
    touched = _touched(artifact.weakening_patch, "weakening")
    outside = [path for path in touched if path not in artifact.test_files]
    if outside:
        raise CheckFailed(
            "test_files_incomplete", f"test_weaken.diff touches unlisted files: {outside}"
        )
    state.weakening = _applied(tree, {}, artifact.weakening_patch, "weakening")
    if not state.weakening:
        raise CheckFailed("weakening_empty", "test_weaken.diff changes nothing")
    return f"{len(artifact.test_files)} test files, {len(touched)} weakened"


def check_scope(state: ValidationState) -> str:
    """The bug patch changes enough source files and no test or runner configuration."""
    tree, artifact = state.environment.tree, state.artifact
    if not artifact.bug_patch.strip():
        raise CheckFailed("bug_empty", "bug_inject.diff changes nothing")
    touched = _touched(artifact.bug_patch, "bug")
    for path in touched:
        if path in artifact.test_files:
            raise CheckFailed("touches_oracle_test", f"{path}: an oracle test file")
        if is_hook_path(path):
            raise CheckFailed("touches_hook_file", f"{path}: steers the test runner")
    state.bug = _applied(tree, {}, artifact.bug_patch, "bug")
    if not state.bug:
        raise CheckFailed("bug_empty", "bug_inject.diff changes nothing")
    state.weakened_state = _applied(tree, state.bug, artifact.weakening_patch, "weakening")
    names = test_names(tree)
    sources = [p for p in state.bug if is_source_path(p, artifact.test_files, names)]
    if len(sources) < state.limits.min_changed_files:
        raise CheckFailed(
            "too_few_files",
            f"{len(sources)} source files changed, {state.limits.min_changed_files} wanted",
        )
    _check_code(tree, state.bug)
    return f"{len(sources)} source files changed"


def check_forbidden_content(state: ValidationState) -> str:
    """Nothing banned in script, parser, weakened tests and bug patch."""
    found = forbidden_content(state.environment.tree, state.artifact, state.bug, state.weakening)
    if found is not None:
        raise CheckFailed(*found)
    return ""


def _check_code(tree: Path, bug: Layer) -> None:
    """No syntax error, and more than comments and layout must change."""
    changes_code = False
    for path, change in bug.items():
        if change.content is None:
            changes_code = True
            continue
        after = change.content.decode("utf-8", "surrogateescape")
        original = read_file(tree, {}, path)
        before = (original or b"").decode("utf-8", "surrogateescape")
        language = language_of(path)
        if not language.is_valid(after) and (original is None or language.is_valid(before)):
            raise CheckFailed("syntax_error", f"{path}: is not valid {language.name} any more")
        changes_code = changes_code or original is None or not language.same_code(before, after)
    if not changes_code:
        raise CheckFailed("no_code_change", "only comments, docstrings or layout change")


def _touched(patch: str, which: str) -> tuple[str, ...]:
    try:
        return touched_files(patch)
    except PatchError as error:
        raise CheckFailed(f"{which}_malformed", str(error)) from None


def _applied(tree: Path, below: Layer, patch: str, which: str) -> Layer:
    try:
        return apply_patch(tree, below, patch)
    except PatchError as error:
        raise CheckFailed(f"{which}_does_not_apply", str(error)) from None
