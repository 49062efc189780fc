"""JUnit XML as the second witness of a pass: whatever it does not say outright is no pass."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.test_runs.junit import junit_key, read_junit, unsupported_passes

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
WORD = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
IDS = st.builds(
    lambda path, owners, name, tail: f"{'/'.join(path)}.py::{'::'.join([*owners, name])}{tail}",
    st.lists(WORD, min_size=1, max_size=3),
    st.lists(WORD, max_size=2),
    WORD,
    st.one_of(st.just(""), NAMES.map(lambda text: f"[{text}]")),
)
OUTCOMES = st.sampled_from(["passed", "failure", "error", "skipped"])


def document(cases: list[tuple[str, str]]) -> bytes:
    """What pytest writes: a testcase for each, with a child for what is no pass."""
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="pytest")
    for test, outcome in cases:
        classname, name = junit_key(test)
        case = ElementTree.SubElement(suite, "testcase", classname=classname, name=name)
        if outcome != "passed":
            ElementTree.SubElement(case, outcome, message="why").text = "said"
    return ElementTree.tostring(root, encoding="utf-8")


@given(st.lists(st.tuples(IDS, OUTCOMES), max_size=8))
def test_only_what_always_passed_is_supported(cases: list[tuple[str, str]]) -> None:
    ids = list(dict.fromkeys(test for test, _ in cases))
    outcomes = {
        test: {o for other, o in cases if junit_key(other) == junit_key(test)} for test in ids
    }
    good = [t for t in ids if "passed" in outcomes[t] and not outcomes[t] & {"failure", "error"}]
    unsupported = unsupported_passes(ids, document(cases))
    assert unsupported == [test for test in ids if test not in good]


@given(st.lists(st.tuples(IDS, OUTCOMES), min_size=1, max_size=4), st.data())
def test_a_document_without_its_end_supports_nothing(
    cases: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole = document(cases)
    cut = data.draw(st.integers(0, len(whole) - 1))
    ids = [test for test, _ in cases]
    assert read_junit(whole[:cut]) is None or not cut
    assert unsupported_passes(ids, whole[:cut]) == ids
    assert unsupported_passes(ids, None) == ids
    assert unsupported_passes(ids, b"<!DOCTYPE x>" + whole) == ids


@given(IDS, IDS)
def test_no_test_answers_for_one_of_another_file(left: str, right: str) -> None:
    """Keys meet only where pytest itself writes the same words for both."""
    same_address = left.partition("[")[0].replace("/", ".").replace("::", ".")
    other_address = right.partition("[")[0].replace("/", ".").replace("::", ".")
    if junit_key(left) == junit_key(right):
        assert same_address.replace(".py", "") == other_address.replace(".py", "")
        assert left.partition("[")[2] == right.partition("[")[2]


@given(st.binary())
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    table = read_junit(raw)
    assert table is None or set(table.values()) <= {"passed", "failed"}


@pytest.mark.parametrize(
    ("test", "key"),
    [
        ("test_a.py::test_b", ("test_a", "test_b")),
        ("a/b.py/test_c.py::T::test_d[x/y.py]", ("a.b.py.test_c.T", "test_d[x/y.py]")),
        ("test_a.py::test_b[\x1b]", ("test_a", "test_b[#x1B]")),
        ("README.rst::README.rst", ("README.rst", "README.rst")),
    ],
)
def test_the_words_of_pytest(test: str, key: tuple[str, str]) -> None:
    assert junit_key(test) == key
