"""An answer that cannot be used: its episode is completed, with the lowest reward."""

from __future__ import annotations

from selfplay.errors import SelfplayError


class Rejected(SelfplayError):
    """Why an answer was turned down; `reason` is a short stable code.

    bad_format, bad_line   the answer is no edit of the listing
    no_change              nothing changes, or comments, docstrings and layout only
    syntax_error           the edited file is not Python
    not_covered            no affordable test file reaches the function
    no_failing_test        the tests do not notice the bug
    all_tests_fail         nothing passes any more: not a bug but a wreck
    timed_out              the tests do not end any more

    `errored`: there is no answer, by no fault of the model; the episode is errored.

    Of the agentic scaffold:
    submission_missing, submission_link, submission_special, submission_huge, submission_binary
                           a file of the submission is no plain text file of a sane size
    not_submitted          the episode ended before anything was handed in
    bad_calls              too many calls that no tool understands
    """

    def __init__(self, reason: str, detail: str = "", *, errored: bool = False) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.errored = errored
