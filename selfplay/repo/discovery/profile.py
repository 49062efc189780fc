"""What discovery learned of a repository's tests: once, cached, told to nobody by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from selfplay.records import from_plain, to_plain

Runner = Literal["pytest", "tap"]
"""pytest runs unittest's classes too; "tap" is `prove` on files that print TAP."""


@dataclass(frozen=True, kw_only=True)
class TestInfo:
    """One stable, passing test: its file, seconds, and the functions ("path::qualname") it ran."""

    __test__ = False
    file: str
    duration_s: float
    functions: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class RepoProfile:
    """Runner, test files with their seconds, stable tests, and why the others were left out.

    variables    what the environment of every test run needs beyond the prepared one's
    settings     of pytest: its file (`config`), and which of the project's addopts hold (`kept`)
                 and do not (`left_out`), as a shell would write them
    """

    runner: Runner
    test_files: Mapping[str, float]
    tests: Mapping[str, TestInfo]
    excluded: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _by_function(self) -> dict[str, tuple[str, ...]]:
        index: dict[str, list[str]] = {}
        for test, info in self.tests.items():
            for function in info.functions:
                index.setdefault(function, []).append(test)
        return {name: tuple(tests) for name, tests in index.items()}

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Measured duration of each stable test."""
        return {test: info.duration_s for test, info in self.tests.items()}

    def num_left_out(self) -> dict[str, int]:
        """How many tests (and files that could not be read) were left out, by kind of reason."""
        return dict(Counter(why.partition(":")[0] for why in self.excluded.values()).most_common())

    def tests_reaching(self, path: str, qualname: str) -> tuple[str, ...]:
        """Stable tests that ran a function, in discovery order."""
        return self._by_function.get(f"{path}::{qualname}", ())

    def to_json(self) -> str:
        """The cached form."""
        names = sorted({name for info in self.tests.values() for name in info.functions})
        number = {name: i for i, name in enumerate(names)}
        stored = _Stored(
            runner=self.runner,
            test_files=self.test_files,
            excluded=self.excluded,
            variables=self.variables,
            settings=self.settings,
            functions=names,
            tests={
                test: (info.file, info.duration_s, sorted(number[f] for f in info.functions))
                for test, info in self.tests.items()
            },
        )
        return json.dumps(to_plain(stored))

    @classmethod
    def from_json(cls, text: str) -> RepoProfile:
        """Inverse of `to_json`. Raises `UserError` that names the field that does not fit."""
        stored = from_plain(_Stored, json.loads(text))
        names = stored.functions
        return cls(
            runner=stored.runner,
            test_files=stored.test_files,
            excluded=stored.excluded,
            variables=stored.variables,
            settings=stored.settings,
            tests={
                test: TestInfo(
                    file=file, duration_s=seconds, functions=frozenset(names[i] for i in reached)
                )
                for test, (file, seconds, reached) in stored.tests.items()
            },
        )


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A profile as it is cached: names of functions once, and referred to by number."""

    runner: Runner
    test_files: Mapping[str, float]
    excluded: Mapping[str, str]
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    functions: list[str]
    tests: Mapping[str, tuple[str, float, list[int]]]
