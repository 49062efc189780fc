"""Runs an artifact's script on a state of the code and reads the output with its parser.

Runs are cached by content, and two threads that ask for the same run share it. Those of the
original code can outlive the process: every bug with the same tests needs them. A parser that the
harness ships (equal text) runs in-process; any other runs in the sandbox, in a job of its own.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from selfplay.bugs.test_runs.frameworks import FRAMEWORKS
from selfplay.bugs.test_runs.junit import skipped_in_part
from selfplay.bugs.test_runs.scripts import PARSERS, parser_runner, script_module
from selfplay.sandbox.base import Environment, Job, Quota, RunResult, Sandbox
from selfplay.types import Layer, TestTable

PARSER_TIMEOUT_S = 30.0
CACHE_CHARACTERS = 64 << 20
MAX_KEPT = 1 << 20
"""Characters up to which a run of the original is kept on disk."""
JUNIT = "junit.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """One run. `table` is {} unless `parser_ok`; `junit` is the XML of a shipped pytest script."""

    __test__ = False
    table: TestTable
    parser_ok: bool
    exit_code: int | None
    timed_out: bool
    output: str
    output_truncated: bool
    duration_s: float
    cached: bool = False
    junit: bytes | None = None
    parser_output: str = ""


class RunCache(MutableMapping[str, TestRun]):
    """Least recently used runs, bounded by the size of their output. Not thread-safe by itself."""

    def __init__(self, characters: int = CACHE_CHARACTERS) -> None:
        self._runs: OrderedDict[str, TestRun] = OrderedDict()
        self._room = characters

    def __getitem__(self, key: str) -> TestRun:
        self._runs.move_to_end(key)
        return self._runs[key]

    def __setitem__(self, key: str, run: TestRun) -> None:
        self._room -= _size(run)
        self._runs[key] = run
        while self._room < 0 and len(self._runs) > 1:
            _, oldest = self._runs.popitem(last=False)
            self._room += _size(oldest)

    def __delitem__(self, key: str) -> None:
        self._room += _size(self._runs.pop(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


class RunsTests(Protocol):
    """What grading asks of whoever runs the tests for it."""

    @property
    def environment(self) -> Environment:
        """The repository that is tested."""
        ...

    def run(
        self, script: str, parser: str, layer: Layer, *, timeout_s: float, hash_seed: int = 0
    ) -> TestRun:
        """As `TestRunner.run`."""
        ...


class ReadsTests(RunsTests, Protocol):
    """What validation asks of whoever runs the tests for it."""

    def parse(self, parser: str, text: str) -> tuple[TestTable, bool, str]:
        """As `TestRunner.parse`."""
        ...


@dataclass
class TestRunner:
    """Thread-safe, caching runner of scripts on one environment; `num_runs` counts real runs.

    originals    where runs of the original code outlive the process (`Corpus.run_cache`), or None
    """

    __test__ = False
    sandbox: Sandbox
    environment: Environment
    cache: MutableMapping[str, TestRun] | None = None
    originals: MutableMapping[str, str] | None = None
    num_runs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _pending: dict[str, Future[TestRun]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cache is None:
            self.cache = RunCache()

    def run(
        self, script: str, parser: str, layer: Layer, *, timeout_s: float, hash_seed: int = 0
    ) -> TestRun:
        """Run `script` on original + `layer`; the same question is answered from the cache.

        Raises `SandboxError` when the sandbox fails; such a failure is never cached.
        """
        question = self._key(script, parser, layer, hash_seed)
        key = f"{question}/{timeout_s!r}"
        assert self.cache is not None
        with self._lock:
            if key in self.cache:
                return replace(self.cache[key], cached=True)
            if question in self.cache and self.cache[question].duration_s <= timeout_s:
                return replace(self.cache[question], cached=True)
            waiting = self._pending.get(key)
            if waiting is None:
                mine: Future[TestRun] = Future()
                self._pending[key] = mine
        if waiting is not None:
            return replace(waiting.result(), cached=True)
        try:
            kept = None if layer else self._kept(question, timeout_s)
            run = kept or self._run(script, parser, layer, timeout_s, hash_seed)
            if not layer and not kept:
                self._keep(question, run)
        except BaseException as error:
            with self._lock:
                del self._pending[key]
            mine.set_exception(error)
            raise
        with self._lock:
            # What ended in time ends in time under any longer limit too.
            self.cache[key if run.timed_out else question] = run
            self.num_runs += not kept
            del self._pending[key]
        mine.set_result(run)
        return replace(run, cached=bool(kept))

    def parse(self, parser: str, text: str) -> tuple[TestTable, bool, str]:
        """(table, whether the parser answered properly, its raw answer) on any text."""
        shipped = parsed(parser, text)
        if shipped is not None:
            return shipped, True, ""
        result = self.sandbox.run(
            Job(
                environment=self.environment,
                argv=("python", "-I", "-W", "ignore", "/in/test_parser.py"),
                stdin=text.encode("utf-8", "surrogateescape"),
                inputs={"test_parser.py": parser.encode("utf-8", "surrogateescape")},
                quota=Quota(timeout_s=PARSER_TIMEOUT_S),
            )
        )
        answer = result.output.decode("utf-8", "surrogateescape")
        if result.exit_code != 0 or result.output_truncated:
            return {}, False, answer
        table = read_table(answer)
        return ({}, False, answer) if table is None else (table, True, answer)

    def _kept(self, question: str, timeout_s: float) -> TestRun | None:
        """A run of the original from an earlier process, where it met the limit."""
        text = self.originals.get(question) if self.originals is not None else None
        run = run_from_text(text) if text else None
        return run if run and _is_whole(run) and run.duration_s <= timeout_s else None

    def _keep(self, question: str, run: TestRun) -> None:
        if self.originals is not None and _is_whole(run) and _size(run) <= MAX_KEPT:
            self.originals[question] = run_to_text(run)

    def _run(
        self, script: str, parser: str, layer: Layer, timeout_s: float, hash_seed: int
    ) -> TestRun:
        result = self.sandbox.run(
            Job(
                environment=self.environment,
                argv=("bash", "/in/test_script.sh"),
                module=script_module(script, f"/out/{JUNIT}"),
                layer=layer,
                inputs={"test_script.sh": script.encode("utf-8", "surrogateescape")},
                variables={"PYTHONHASHSEED": str(hash_seed), "JUNIT_XML": f"/out/{JUNIT}"},
                quota=Quota(timeout_s=timeout_s),
            )
        )
        return self._test_run(parser, result)

    def _test_run(self, parser: str, result: RunResult) -> TestRun:
        output = result.output.decode("utf-8", "surrogateescape")
        table: TestTable = {}
        ok, answer = False, ""
        if not result.output_truncated:
            table, ok, answer = self.parse(parser, output)
        framework = FRAMEWORKS.get(parser_runner(parser) or "")
        if ok and framework is not None and framework.writes_junit:
            partly = skipped_in_part(passed_tests(table), result.files.get(JUNIT))
            table = {test: status for test, status in table.items() if test not in partly}
        return TestRun(
            table=table,
            parser_ok=ok,
            exit_code=result.exit_code,
            timed_out=result.timed_out,
            output=output,
            output_truncated=result.output_truncated,
            duration_s=result.duration_s,
            junit=result.files.get(JUNIT),
            parser_output=answer[-2000:],
        )

    def _key(self, script: str, parser: str, layer: Layer, hash_seed: int) -> str:
        digest = hashlib.sha256()
        head = [self.environment.digest, script, parser, repr(hash_seed)]
        for text in head:
            raw = text.encode("utf-8", "surrogateescape")
            digest.update(f"{len(raw)}\0".encode() + raw)
        feed_layer(digest, layer)
        return digest.hexdigest()


@dataclass
class CountedRuns:
    """A runner for one job of work; `num_runs` are those of its runs that no cache answered."""

    runner: RunsTests
    num_runs: int = 0

    @property
    def environment(self) -> Environment:
        """The repository that is tested."""
        return self.runner.environment

    def run(
        self, script: str, parser: str, layer: Layer, *, timeout_s: float, hash_seed: int = 0
    ) -> TestRun:
        """As `TestRunner.run`."""
        run = self.runner.run(script, parser, layer, timeout_s=timeout_s, hash_seed=hash_seed)
        self.num_runs += not run.cached
        return run


def parsed(parser: str, text: str) -> TestTable | None:
    """What a shipped parser makes of a text; None for any other parser, which needs a sandbox."""
    shipped = parser_runner(parser)
    return None if shipped is None else cast(TestTable, PARSERS[shipped](text))


def feed_layer(digest: hashlib._Hash, layer: Layer) -> None:
    """Put a state into a digest: equal states, and no others, leave it equal."""
    for path, change in sorted(layer.items()):
        raw = path.encode("utf-8", "surrogateescape")
        size = -1 if change.content is None else len(change.content)
        digest.update(f"{len(raw)}\0{size}\0{change.executable:d}\0".encode() + raw)
        digest.update(change.content or b"")


def run_to_text(run: TestRun) -> str:
    """A run as ASCII text; `run_from_text` makes an equal one of it."""
    junit = None if run.junit is None else run.junit.decode("latin-1")
    document = {name: getattr(run, name) for name in TestRun.__dataclass_fields__}
    return json.dumps({**document, "junit": junit, "cached": False})


def run_from_text(text: str) -> TestRun | None:
    """Inverse of `run_to_text`; None for what another version wrote."""
    try:
        document = json.loads(text)
        junit = document["junit"]
        raw = None if junit is None else junit.encode("latin-1")
        return TestRun(**{**document, "junit": raw})
    except (ValueError, KeyError, TypeError):
        return None


def read_table(answer: str) -> TestTable | None:
    """A parser's answer: one JSON object of "passed"/"failed" exactly, else None.

    A test that is named twice with different statuses counts as failed.
    """
    try:
        table = json.loads(answer, object_pairs_hook=_strict_object)
    except (ValueError, RecursionError):
        return None
    if not isinstance(table, dict) or any(s not in ("passed", "failed") for s in table.values()):
        return None
    return table


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, status in pairs:
        table[name] = "failed" if table.get(name, status) != status else status
    return table


def passed_tests(table: TestTable) -> list[str]:
    """Tests that are explicitly reported passed."""
    return [test for test, status in table.items() if status == "passed"]


def failed_tests(table: TestTable) -> list[str]:
    """Tests that are explicitly reported failed."""
    return [test for test, status in table.items() if status == "failed"]


def _is_whole(run: TestRun) -> bool:
    """Whether a run ended by itself, with results: what was cut short is not kept for good."""
    return not run.timed_out and bool(run.table) and run.exit_code in range(128)


def _size(run: TestRun) -> int:
    return len(run.output) + len(run.junit or b"") + 200 * len(run.table)
