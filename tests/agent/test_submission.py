"""The five files from a real sandbox: normalised, or refused with a reason code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.patches.diffs import touched_files
from selfplay.roles.agentic.submission import (
    normal_diff,
    normal_paths,
    normal_text,
    read_submission,
)
from selfplay.roles.rejected import Rejected
from selfplay.sandbox.session.session import Session

DIFF = """diff --git a/src/a.py b/src/a.py
--- a/src/a.py
+++ b/src/a.py
@@ -1,2 +1,2 @@
 x = 1
-y = 2
+y = 3
"""
FILES = {
    "test_script.sh": "#!/bin/bash\r\nexec true\r\n",
    "test_files.txt": "\ufeff./tests/test_a.py\n\n/testbed/tests/test_b.py\n# a comment\n",
    "test_parser.py": "print('{}')",
    "bug_inject.diff": DIFF,
    "test_weaken.diff": "",
}
PLACE = "/tmp/submission"


@pytest.fixture
def handed_in(session: Session) -> Session:
    for name, text in FILES.items():
        session.write(f"{PLACE}/{name}", text.encode())
    return session


def reason(session: Session) -> str:
    with pytest.raises(Rejected) as caught:
        read_submission(session)
    return caught.value.reason


def test_what_is_handed_in_is_normalised(handed_in: Session) -> None:
    artifact = read_submission(handed_in)
    assert artifact.test_script == "#!/bin/bash\nexec true\n"
    assert artifact.test_files == ("tests/test_a.py", "tests/test_b.py")
    assert artifact.test_parser == "print('{}')\n"
    assert (artifact.bug_patch, artifact.weakening_patch) == (DIFF, "")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("rm bug_inject.diff", "submission_missing"),
        ("truncate -s 2M test_weaken.diff", "submission_huge"),
        ("printf 'a\\0b' > bug_inject.diff", "submission_binary"),
        ("printf '\\377' > test_script.sh", "submission_binary"),
        ("ln -sf /etc/passwd test_files.txt", "submission_link"),
        ("rm test_parser.py; mkdir test_parser.py", "submission_special"),
        ("rm test_parser.py; mkfifo test_parser.py", "submission_special"),
        ("cd ..; rm -r submission", "submission_missing"),
        ("cd ..; mv submission s; ln -s s submission", "submission_link"),
        ("cd ..; rm -r submission; echo > submission", "submission_special"),
    ],
)
def test_what_is_no_plain_text_is_refused(handed_in: Session, command: str, expected: str) -> None:
    assert handed_in.run(f"cd {PLACE}; {command}", 20).exit_code == 0
    assert reason(handed_in) == expected


def test_diffs_may_quote_bytes_that_are_no_text(handed_in: Session) -> None:
    handed_in.write(f"{PLACE}/bug_inject.diff", DIFF.encode().replace(b"y = 3", b"y = '\xe9'"))
    assert "y = '\udce9'" in read_submission(handed_in).bug_patch


@pytest.mark.parametrize(
    "other",
    [
        DIFF.replace("\n", "\r\n"),
        "\ufeff" + DIFF,
        DIFF.replace("a/src", "a/testbed/src").replace("b/src", "b/testbed/src"),
        DIFF.replace("a/src", "/testbed/src").replace("b/src", "/testbed/src"),
        DIFF.replace("a/src", "src").replace("b/src", "src"),
        DIFF.replace("--- a/src/a.py", "--- a/src/a.py\t2026-01-01 00:00:00"),
        DIFF.removesuffix("\n"),
    ],
)
def test_many_ways_to_write_one_diff(other: str) -> None:
    assert normal_diff(other) == DIFF
    assert touched_files(normal_diff(other)) == ("src/a.py",)


def test_the_body_of_a_hunk_is_left_alone() -> None:
    """Lines that look like headers, and carriage returns that belong to the file."""
    tricky = DIFF.replace("-y = 2", "--- a/x\t1").replace("+y = 3", "+++ /testbed/x\r")
    assert normal_diff(tricky) == tricky


@given(text=st.text(alphabet="+-@ ,0123456789ab/\n\r\tdiff", max_size=80))
def test_normalising_is_idempotent(text: str) -> None:
    once = normal_diff(text)
    assert normal_diff(once) == once
    assert normal_text(normal_text(text)) == normal_text(text)
    assert normal_paths("\n".join(normal_paths(text))) == normal_paths(text)
