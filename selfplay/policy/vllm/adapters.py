"""A server whose weights change by LoRA adapters, loaded beside the model that it keeps.

    adapter directory -> loaded under a new name -> requests ask for it by name -> version + 1

Nothing is paused and nothing forgotten: a request keeps the adapter that it began with, to its
end, and its answer has that adapter's version. Names are never used twice, on any server by any
run, so neither what was cached for one adapter nor a server that was started anew can pass for
another: a server that does not know a name says so. What a run that was killed left on a server
that is not ours is unloaded by the run that goes on: its directories are gone, and vLLM's engine
ends where it is asked for an adapter that it has put aside and can no longer read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from selfplay.errors import PolicyError, UserError
from selfplay.policy.http import Refused, Unreachable
from selfplay.policy.vllm.backend import Backend, Stale
from selfplay.policy.vllm.client import Answer
from selfplay.sampling import SampleRequest
from selfplay.types import VersionSpan

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A peft directory and what a server calls it."""

    name: str
    directory: Path
    version: int


class AdapterBackend(Backend):
    """A `Backend` whose `model` stays, and to which `load` gives adapters. Thread-safe."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._choosing = threading.Lock()
        self._adapter: Adapter | None = None
        self._coming: Adapter | None = None
        self._retired: set[Adapter] = set()
        self._running: Counter[Adapter] = Counter()

    @property
    def in_use(self) -> set[Path]:
        """Also the adapters of requests under way: vLLM reads one again that it had put aside."""
        with self._choosing:
            kept = {self._adapter, self._coming, *+self._running}
        return super().in_use | {adapter.directory for adapter in kept if adapter is not None}

    def load(self, directory: Path, version: int) -> None:
        """Load an adapter; requests ask for it from `commit` on.

        A server of ours that died is started again, with the adapter of now and this one.
        """
        with self._lock:
            self._coming = Adapter(
                name=f"{directory.name}-{uuid4().hex}", directory=directory, version=version
            )
            super().load(directory, version)

    def _change(self, directory: Path, version: int) -> None:
        assert self._coming is not None
        self._give(self._coming)

    def _start_with(self, directory: Path, version: int) -> None:
        self._start(*self._weights)
        self._change(directory, version)

    def _settle(self, directory: Path, version: int) -> None:
        """From now on requests ask for the adapter that was loaded last."""
        with self._choosing:
            assert self._coming is not None and self._coming.directory == directory
            if self._adapter is not None:
                self._retired.add(self._adapter)
            self._adapter, self._coming = self._coming, None
            done = {adapter for adapter in self._retired if not self._running[adapter]}
            self._retired -= done
        for adapter in done:
            self._forget(adapter)

    def _take_back(self) -> None:
        """The adapter of now is untouched, the new one is dropped."""
        with self._choosing:
            dropped, self._coming = self._coming, None
        if dropped is not None:
            self._forget(dropped)

    def close(self) -> None:
        """A server that stays forgets what it was given: its directories go with the run."""
        if self._process is None and self._client is not None:
            with self._choosing:
                given = {self._adapter, self._coming, *self._retired}
            for adapter in given:
                if adapter is not None:
                    self._forget(adapter)
        super().close()

    def _ask(self, request: SampleRequest, max_tokens: int, end_of_turn_id: int) -> list[Answer]:
        with self._current() as adapter:
            try:
                answers = self.client.generate(
                    request,
                    max_tokens=max_tokens,
                    end_of_turn_id=end_of_turn_id,
                    adapter=adapter.name,
                )
            except Refused as error:
                if error.status == 404:
                    raise Stale(f"{self.client.url}: has lost its adapter ({error})") from error
                raise
        self._check_spans(answers)
        return [
            dataclasses.replace(
                answer,
                spans=(VersionSpan(version=adapter.version, start=0, end=len(answer.token_ids)),),
            )
            for answer in answers
        ]

    def _start(self, model: Path | None, version: int) -> None:
        super()._start(model, version)
        if self._adapter is not None:
            self._give(self._adapter)

    def _bring_back(self) -> None:
        super()._bring_back()
        if self._adapter is not None and self._adapter.name not in self.client.served():
            self._give(self._adapter)

    @contextlib.contextmanager
    def _current(self) -> Iterator[Adapter]:
        """The adapter of now, kept while a request needs it."""
        with self._choosing:
            adapter = self._adapter
            if adapter is None:
                raise PolicyError("no adapter was loaded")
            self._running[adapter] += 1
        try:
            yield adapter
        finally:
            with self._choosing:
                self._running[adapter] -= 1
                if not self._running[adapter]:
                    del self._running[adapter]

    def _give(self, adapter: Adapter) -> None:
        try:
            self.client.load_adapter(adapter.name, adapter.directory)
        except Unreachable:
            raise
        except PolicyError as error:
            raise PolicyError(f"loading weights {adapter.version} failed: {error}") from error
        self._sweep(adapter.directory.parent)

    def _sweep(self, folder: Path) -> None:
        """Forget adapters of `folder`, which is this run's alone, that nobody of now has given."""
        with self._choosing:
            given = {self._adapter, self._coming, *self._retired, *self._running}
        names = {adapter.name for adapter in given if adapter is not None}
        with contextlib.suppress(PolicyError):
            for name, root in self.client.served().items():
                if name not in names and Path(root).parent == folder:
                    self.client.unload_adapter(name)

    def _forget(self, adapter: Adapter) -> None:
        with contextlib.suppress(PolicyError, UserError):
            self.client.unload_adapter(adapter.name)
