"""The last lines that failing tests run on the buggy code, and what each of them changed.

A prompt is told of them; no verdict depends on them. Three runs of the chosen tests, plainly and
then traced under two hash seeds, in a sandbox in which nothing of the original lies: a test that
does not fail alike in all three, or does not run alike twice, is left out, and so is all that
depends on the time, on hashes, on addresses or on being traced. Whatever goes wrong gives nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.bugs.sealing import sealed_environment
from selfplay.bugs.test_runs.inside import PLUGIN, program_layer
from selfplay.bugs.test_runs.kept import Kept
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import recording_module
from selfplay.errors import InfrastructureError, UserError
from selfplay.records import from_plain
from selfplay.sandbox.base import Job, Quota
from selfplay.types import Layer

log = logging.getLogger(__name__)
MAX_EVENTS, MAX_TEST_S, MAX_RUN_S = 50_000, 3.0, 20.0
"""Of one test: events and seconds of a recording. Seconds of one run of all tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedLine:
    """A line (1-based) of a file as it ran: the locals that it changed, and "return VALUE", "yield
    VALUE" or "raise ERROR" where it ended so."""

    path: str
    line: int
    changes: tuple[tuple[str, str], ...] = ()
    end: str = ""


LastLines = Mapping[str, tuple[TracedLine, ...]]
"""{test id: the last lines of each function that it ran, in the order in which they ended}; tests
in the order in which they ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    """One line of the recorder's document. Rows: order, place, line, changes, end."""

    test: str
    outcomes: list[str]
    crash: tuple[str, int] | None = None
    why: str = ""
    places: list[tuple[str, str]] = field(default_factory=list)
    tail: list[tuple[int, int, int, dict[str, str], str]] = field(default_factory=list)

    def rows(self) -> tuple[TracedLine, ...]:
        return tuple(
            TracedLine(path=self.places[place][0], line=line, changes=(*told.items(),), end=end)
            for _, place, line, told, end in self.tail
        )


class LastLinesRecorder:
    """Records on one repository. Thread-safe; what it recorded last is kept.

    num_rows    of each function that are kept of a test
    """

    def __init__(self, runner: TestRunner, num_rows: int) -> None:
        self._sandbox = runner.sandbox
        self._environment = sealed_environment(runner.environment)
        self._num_rows = num_rows
        self._kept: Kept[LastLines] = Kept()

    def record(
        self,
        key: str,
        script: str,
        layer: Layer,
        *,
        tests: tuple[str, ...],
        files: Sequence[str],
        timeout_s: float,
    ) -> LastLines:
        """Of failing tests of a script on original + `layer`; `key` names both. `files`: those
        whose functions are recorded. Raises nothing; a fault of the machine is logged."""
        if (known := self._kept.get((key, tests))) is not None:
            return known
        module = recording_module(script, PLUGIN)
        if not module or not tests:
            return {}
        try:
            runs = list(self._runs(module, layer, tests, files, min(timeout_s, MAX_RUN_S)))
        except InfrastructureError as error:
            log.warning("%s: its tests could not be traced: %s", key, error)
            return {}
        found = agreed(*runs) if len(runs) == 3 else {}
        self._kept.keep((key, tests), found)
        return found

    def _runs(
        self,
        module: tuple[str, ...],
        layer: Layer,
        tests: Sequence[str],
        files: Sequence[str],
        timeout_s: float,
    ) -> Iterator[dict[str, _Recording]]:
        """Plainly, then traced twice; none behind one in which no test failed."""
        for tracing, hash_seed in ((False, 0), (True, 0), (True, 1)):
            asked = {
                "tests": list(tests),
                "files": list(files),
                "tracing": tracing,
                "num_rows": self._num_rows,
                "max_events": MAX_EVENTS,
                "max_seconds": MAX_TEST_S,
            }
            result = self._sandbox.run(
                Job(
                    environment=self._environment,
                    argv=("python", "-m", *module),
                    module=module,
                    layer={**layer, **program_layer()},
                    inputs={"traces.json": json.dumps(asked).encode()},
                    variables={"PYTHONHASHSEED": str(hash_seed)},
                    quota=Quota(timeout_s=timeout_s),
                )
            )
            found = read_document(result.files.get("traces.jsonl", b""), tests, files)
            if not any(_failed(one) for one in found.values()):
                return
            yield found


def agreed(
    plain: Mapping[str, _Recording],
    first: Mapping[str, _Recording],
    second: Mapping[str, _Recording],
) -> LastLines:
    """What two traced runs tell alike of tests that fail in them as they do plainly: at the same
    line, by the same phases."""
    kept = {}
    for test, one in first.items():
        others = [plain[test], second[test]] if test in plain and test in second else []
        alike = all((o.outcomes, o.crash) == (one.outcomes, one.crash) for o in others)
        if others and alike and _failed(one) and not one.why and one.rows() == others[1].rows():
            kept[test] = one.rows()
    return kept


def read_document(
    content: bytes, tests: Collection[str], files: Collection[str]
) -> dict[str, _Recording]:
    """The recorder's lines; what does not fit is left out: it was written beside untrusted code."""
    found: dict[str, _Recording] = {}
    for line in content.splitlines():
        try:
            one = from_plain(_Recording, json.loads(line))
            known = all(row.path in files for row in one.rows())
        except (UserError, ValueError, IndexError, RecursionError):
            continue
        if known and one.test in tests:
            found.setdefault(one.test, one)
    return found


def _failed(one: _Recording) -> bool:
    return "call failed" in one.outcomes
