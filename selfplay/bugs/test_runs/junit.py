"""JUnit XML as a second reading of a pytest run, from a channel that printed text cannot reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from selfplay.types import TestStatus

JunitKey = tuple[str, str]
_FAILURES = {"failure", "error"}
_NOT_WRITTEN = re.compile("[^\\t\\n\\r -~\\x80-\\ud7ff\\ue000-\\ufffd]")
"""What pytest writes as `#x1B`; other planes than the first too, in the versions of today."""


def junit_key(test: str) -> JunitKey:
    """(classname, name) that pytest writes for a node id.

    Example: `tests/test_a.py::TestB::test_c[x::1]` -> ("tests.test_a.TestB", "test_c[x::1]").
    """
    address, bracket, parameters = test.partition("[")
    names = address.split("::")
    names[0] = re.sub(r"\.py$", "", names[0].replace("/", "."))
    names[-1] += bracket + parameters
    return ".".join(names[:-1]), _written(names[-1])


def _written(name: str) -> str:
    """A test's name as pytest writes it into XML."""
    return _NOT_WRITTEN.sub(lambda match: f"#x{ord(match[0]):02X}", name)


def read_junit(document: bytes) -> Mapping[JunitKey, TestStatus] | None:
    """{(classname, name): status}, None when the document is missing a proper end.

    Skipped tests are left out; any failure of a repeated test counts.
    """
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        return None
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError:
        return None
    table: dict[JunitKey, TestStatus] = {}
    for case in root.iter("testcase"):
        key = (case.get("classname", ""), _written(case.get("name", "")))
        kinds = {child.tag for child in case}
        if kinds & _FAILURES:
            table[key] = "failed"
        elif "skipped" not in kinds:
            table.setdefault(key, "passed")
    return table


def skipped_in_part(passed: list[str], document: bytes | None) -> list[str]:
    """Tests reported passed that the XML shows as skipped: a subtest of theirs was."""
    if not passed or not document or read_junit(document) is None:
        return []
    cases = ElementTree.fromstring(document).iter("testcase")
    skipped = {
        (case.get("classname", ""), _written(case.get("name", "")))
        for case in cases
        if "skipped" in {child.tag for child in case}
    }
    return [test for test in passed if junit_key(test) in skipped]


def unsupported_passes(passed: list[str], document: bytes | None) -> list[str]:
    """Tests reported passed that the XML does not show as passed; all of them without XML."""
    table = read_junit(document) if document else None
    if table is None:
        return list(passed)
    return [test for test in passed if table.get(junit_key(test)) != "passed"]
