"""Tests in Perl taken out or made to fail, told by running perl on what the edit made."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.bugs.grading.poisoned_tests import poisoned_layer
from selfplay.bugs.test_edits.editors import editor_of
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.types import Layer

pytestmark = pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
FORMS = (
    "is(f(1), 2, '{}');",
    "is f(1), 2, '{}';",
    'ok(f(1) == 2, "{}");',
    "ok f(1) == 2,\n    '{}';",
    "is_deeply([f(1), f(2)], [2, 3], '{}');",
    "like(f(1), qr/^2$/, '{}'); # again",
    "isnt f(1), 3, q({});",
    "cmp_ok(f(1), '<', 3, '{}');",
    "subtest '{}' => sub {{ plan tests => 1; ok 1, 'inner' }};",
    "{{\n    ok f(1), '{}';\n}}",
    "if (f(1)) {{ pass('{}') }}",
)
NAMES = ("adds", "it's", "a # b", "x => 1", "two words", "q", "{curly}", "50%")
TESTS = st.lists(st.tuples(st.sampled_from(FORMS), st.sampled_from(NAMES)), min_size=1, max_size=5)
HEAD = "#!/usr/bin/perl\nuse strict;\nuse warnings;\nuse Test::More{};\n\nsub f {{ $_[0] + 1 }}\n\n"
TAP = re.compile(r"^(not )?ok \d+ - (.*)$", re.MULTILINE)


def quoted(form: str, name: str) -> str:
    """The form with a name that is the same text in its own kind of quotes."""
    mark = "'" if "'{}'" in form else ""
    return form.format(name.replace("'", "\\'") if mark else name)


def suite(tests: list[tuple[str, str]], planned: bool) -> tuple[str, list[str]]:
    """(text of a test file, the names of its tests, all different)."""
    names = [f"{name} {number}" for number, (_, name) in enumerate(tests)]
    lines = [quoted(form, name) for (form, _), name in zip(tests, names, strict=True)]
    head = HEAD.format(f" tests => {len(tests)}" if planned else "")
    return head + "\n".join(lines) + ("\n" if planned else "\ndone_testing;\n"), names


def results(text: str) -> dict[str, str] | None:
    """{name: status} of a run, None for a file that is skipped. Fails where perl cannot read it."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "a.t")
        file.write_text(text, encoding="utf-8")
        done = subprocess.run(["perl", str(file)], capture_output=True, text=True, check=False)
    assert "syntax error" not in done.stderr and "Looks like you planned" not in done.stderr, text
    if done.stdout.startswith("1..0"):
        return None
    return {
        match[2].replace("\\#", "#"): "failed" if match[1] else "passed"
        for match in TAP.finditer(done.stdout)
    }


def edited(layer: Layer, text: str) -> str:
    content = layer["t/a.t"].content if "t/a.t" in layer else text.encode()
    assert content is not None
    return content.decode()


def written(folder: str, text: str) -> Path:
    (Path(folder) / "t").mkdir()
    Path(folder, "t", "a.t").write_text(text, encoding="utf-8")
    return Path(folder)


@settings(deadline=None, max_examples=40)
@given(TESTS, st.booleans(), st.data())
def test_what_is_left_of_a_weakened_file_runs_and_passes(
    tests: list[tuple[str, str]], planned: bool, data: st.DataObject
) -> None:
    """Either just these tests are gone and the plan with them, or the whole file is skipped."""
    text, names = suite(tests, planned)
    assert results(text) == dict.fromkeys(names, "passed")
    doomed = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    with TemporaryDirectory() as folder:
        layer = weakening_layer(written(folder, text), [f"t/a.t::{name}" for name in doomed])
    left = results(edited(layer, text))
    assert left is None or left == {n: "passed" for n in names if n not in doomed}
    plain = all("sub {{" not in form and "{{" not in form for form, _ in tests)
    if plain and len(doomed) < len(names):
        assert left is not None, "what can be told for certain is taken out by itself"


@settings(deadline=None, max_examples=40)
@given(TESTS, st.booleans(), st.data())
def test_a_poisoned_statement_fails_and_no_other(
    tests: list[tuple[str, str]], planned: bool, data: st.DataObject
) -> None:
    text, names = suite(tests, planned)
    doomed = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    ids = {name: f"t/a.t::{name}" for name in names}
    with TemporaryDirectory() as folder:
        tree = written(folder, text)
        can = {name for name in doomed if editor_of(ids[name]).can_fail(tree, ids[name])}
        layer = poisoned_layer(tree, {}, [ids[name] for name in doomed])
    found = results(edited(layer, text))
    assert found is not None
    assert found == {n: "failed" if n in can else "passed" for n in names}
    assert can == set(doomed), "each of these forms can be told for certain"
