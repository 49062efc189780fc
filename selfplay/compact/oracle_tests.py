"""Which test files judge a bug in a function: the cheapest ones that reach it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from selfplay.repo.discovery.profile import RepoProfile
from selfplay.types import TestTable


class OracleTests:
    """Oracle test files for the functions of one repository, within bounds of number and time."""

    def __init__(self, profile: RepoProfile, *, max_files: int, max_s: float) -> None:
        self._profile = profile
        self._max_files = max_files
        self._max_s = max_s
        self._num_tests = Counter(info.file for info in profile.tests.values())

    def files(
        self,
        path: str,
        function: str,
        min_passing_tests: int = 5,
        without: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Sorted paths of the test files for a bug in `function`; () when no set will do.

        Files with the most reaching tests a second come first; more are added while there are
        fewer than `min_passing_tests` tests. Files of `without` are not taken.
        """
        seconds_of = self._profile.test_files
        reaching = Counter(
            self._profile.tests[test].file for test in self._profile.tests_reaching(path, function)
        )
        order = sorted(
            reaching.keys() - set(without), key=lambda f: (-reaching[f] / (seconds_of[f] + 0.1), f)
        )
        chosen: list[str] = []
        seconds, num_tests = 0.0, 0
        for file in order:
            if seconds + seconds_of[file] <= self._max_s and len(chosen) < self._max_files:
                chosen.append(file)
                seconds += seconds_of[file]
                num_tests += self._num_tests[file]
            if num_tests >= min_passing_tests:
                return tuple(sorted(chosen))
        return ()

    def unfit(self, files: Collection[str], original: TestTable) -> set[str]:
        """Files of a set that cannot judge: run by themselves, on the original code, one of their
        tests fails or a test is missing that passed in the whole suite.

        original    the table of a run of exactly these files
        """
        tests = self._profile.tests
        missing = {
            info.file
            for test, info in tests.items()
            if info.file in files and original.get(test) != "passed"
        }
        failed = {test.partition("::")[0] for test, s in original.items() if s == "failed"}
        return missing | (failed & set(files))
