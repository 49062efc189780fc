"""Recordings of tests: run in the sandbox by the recorder, and read back."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selfplay.bugs.test_runs.inside import PLUGIN, program_layer
from selfplay.bugs.test_runs.scripts import recording_module, runner_script
from selfplay.errors import UserError
from selfplay.records import from_plain
from selfplay.repo.prepare import PreparedRepo
from selfplay.sandbox.base import Job, Quota, Sandbox

OUTPUT = 128 << 20
START_S, SLOWER = 60.0, 5
"""Seconds that a run has beside its tests', and how many times as long as once these may take."""
Event = tuple[str, int, int, dict[str, str | None] | str, int]
"""Kind, place (counted in `TestRecording.places`), line from 1, what the event tells, and depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of one test: events, bytes of what they tell, and seconds in which it is recorded."""

    max_events: int = 2000
    max_bytes: int = 200_000
    max_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call of a module's function that gave a value; all text is exact."""

    path: str
    module: str
    function: str
    input: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRecording:
    """One test as it was run once. `samples` are complete calls from outside the recorded files.
    `chance`: after a test that drew from the interpreter's global random numbers their state."""

    __test__ = False
    test: str
    outcomes: list[str]
    seconds: float
    why: str = ""
    chance: str = ""
    places: list[tuple[str, str]] = field(default_factory=list)
    samples: list[list[Event]] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def named(self) -> list[list[tuple[tuple[str, str], Event]]]:
        """The samples with their places by name, as they are compared."""
        return [[(self.places[e[1]], e) for e in sample] for sample in self.samples]


NOTHING = TestRecording(test="", outcomes=[], seconds=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """{test: its recording} of one run, and its seconds with the start of the interpreter."""

    tests: Mapping[str, TestRecording]
    seconds: float


class Recorder:
    """Runs some tests of a repository in the sandbox, plainly or traced."""

    def __init__(
        self,
        prepared: PreparedRepo,
        sandbox: Sandbox,
        tests: Sequence[str],
        files: Sequence[str],
        bounds: Bounds,
    ) -> None:
        self._prepared, self._sandbox = prepared, sandbox
        self._tests, self._files, self._bounds = tests, files, bounds

    def run(self, tracing: bool, hash_seed: int) -> Run:
        """One run; a test that it did not get to is missing."""
        profile, bounds = self._prepared.profile, self._bounds
        known = {profile.tests[test].file for test in self._tests}
        script = runner_script(profile.runner, sorted(known))
        asked = {
            "tests": list(self._tests),
            "files": list(self._files),
            "tracing": tracing,
            "max_events": bounds.max_events,
            "max_bytes": bounds.max_bytes,
            "max_seconds": bounds.max_seconds,
        }
        plain_s = sum(profile.tests[test].duration_s for test in self._tests)
        traced_s = bounds.max_seconds * len(self._tests) if tracing else 0.0
        result = self._sandbox.run(
            Job(
                environment=self._prepared.environment,
                argv=("python", "-m", *recording_module(script, PLUGIN)),
                layer=program_layer(),
                inputs={"traces.json": json.dumps(asked).encode()},
                variables={"PYTHONHASHSEED": str(hash_seed)},
                quota=Quota(timeout_s=START_S + SLOWER * plain_s + traced_s, output=OUTPUT),
            )
        )
        found = read_recordings(result.files.get("traces.jsonl", b""), frozenset(self._files))
        return Run(tests={r.test: r for r in found}, seconds=result.duration_s)


def read_recordings(content: bytes, files: Collection[str]) -> Iterator[TestRecording]:
    """The recorder's lines; one that does not fit is left out: it was written beside untrusted
    code, and a path of its making could name any file."""
    for line in content.splitlines():
        try:
            found = from_plain(TestRecording, json.loads(line))
            told = found.named()
        except (UserError, ValueError, IndexError, RecursionError):
            continue
        if all(told) and all(path in files for path, _ in found.places):
            yield found
