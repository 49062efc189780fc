"""Which lines the failing and the passing oracle tests run on the buggy code (a spectrum).

A prompt is told of them; no verdict depends on them. The run is one of its own, with coverage:
what a test does in it does not count. Without a spectrum (another framework, a test that ends the
interpreter, a run out of time) a solver is shown what it was shown without it.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfplay.bugs.test_runs import line_recorder
from selfplay.bugs.test_runs.kept import Kept
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.test_runs.scripts import recording_module
from selfplay.errors import InfrastructureError
from selfplay.sandbox.base import Job, Quota
from selfplay.types import FileChange, Layer

log = logging.getLogger(__name__)
PLUGIN = "selfplay_lines"
"""The recorder's name in the tree of its run, where an interpreter that is forked finds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectrum:
    """`lines`: {path: {1-based line: (failing, passing tests that run it)}}; `num_failing`: of the
    tests that were asked about."""

    lines: Mapping[str, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    num_failing: int = 0

    def suspicion(self, path: str, line: int) -> float:
        """Ochiai's score of a line (1-based), 0 to 1: ef / sqrt(F * (ef + ep)).

        Example: of 4 failing tests 2 run it, and 6 passing ones: 2 / sqrt(4 * 8) = 0.354.
        """
        failing, passing = self.lines.get(path, {}).get(line, (0, 0))
        if not failing:
            return 0.0
        return failing / math.sqrt(self.num_failing * (failing + passing))

    def peak(self, path: str, first: int, last: int) -> tuple[float, int]:
        """(highest score, first line that has it) of the lines behind `first` up to `last`: those
        of a function's body, whose first line ran when its module was imported. (0.0, 0) where no
        failing test runs one."""
        lines = [n for n in self.lines.get(path, {}) if first < n <= last]
        score, line = max(((self.suspicion(path, n), -n) for n in lines), default=(0.0, 0))
        return (score, -line) if score else (0.0, 0)


class SpectrumRecorder:
    """Records spectra on one repository. Thread-safe; what it recorded last is kept."""

    def __init__(self, runner: TestRunner) -> None:
        self.runner = runner
        self._kept: Kept[Spectrum] = Kept()

    def record(
        self,
        key: str,
        script: str,
        layer: Layer,
        *,
        failing: tuple[str, ...],
        passing: tuple[str, ...],
        timeout_s: float,
    ) -> Spectrum:
        """The spectrum of a script on original + `layer`; `key` names both. An empty one where
        there is none to be had; a fault of the machine is logged and gives an empty one, too."""
        if (known := self._kept.get((key, failing))) is not None:
            return known
        module = recording_module(script, PLUGIN)
        if not module:
            return Spectrum()
        judged = {**dict.fromkeys(passing, 0), **dict.fromkeys(failing, 1)}
        plugin = FileChange(content=Path(line_recorder.__file__).read_bytes())
        job = Job(
            environment=self.runner.environment,
            argv=("python", "-m", *module),
            module=module,
            layer={**layer, f"{PLUGIN}.py": plugin},
            inputs={"judged.json": json.dumps(judged).encode()},
            variables={"PYTHONHASHSEED": "0"},
            quota=Quota(timeout_s=timeout_s),
        )
        try:
            result = self.runner.sandbox.run(job)
        except InfrastructureError as error:
            log.warning("%s: its tests' lines could not be recorded: %s", key, error)
            return Spectrum()
        lines = read_lines(result.files.get("lines.json", b""))
        found = Spectrum(lines=lines, num_failing=len(failing)) if lines else Spectrum()
        self._kept.keep((key, failing), found)
        return found


def read_lines(content: bytes) -> dict[str, dict[int, tuple[int, int]]]:
    """The recorder's document; {} for anything else, since it was written beside untrusted code."""
    try:
        document = json.loads(content)
        return {
            str(path): {int(line): _counts(counts) for line, counts in lines.items()}
            for path, lines in document.items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _counts(counts: Any) -> tuple[int, int]:
    failing, passing = counts
    if type(failing) is not int or type(passing) is not int or min(failing, passing) < 0:
        raise ValueError(counts)
    return failing, passing
