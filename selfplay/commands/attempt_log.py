"""The attempts of an evaluation, a line each, written as they are judged and gone on from.

A line is an episode (`episodes.py`, without its tokens) with the attempt's `sample`, `resolved`,
`errored`, what was asked, said and wanted (`prompt`, `answer`, `patch`, `gold`), and what it
belongs to: `evaluation` and `task` are hashes. docs/formats.md
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.commands.compose import SCAFFOLDS
from selfplay.commands.output import say
from selfplay.config import PolicyConfig, ScaffoldConfig
from selfplay.curriculum.evaluation import Judged
from selfplay.curriculum.solving import Attempt, told_share
from selfplay.errors import UserError
from selfplay.files import (
    append_json_lines,
    encode_json,
    read_json_lines,
    repair_json_lines,
    write_atomic,
)
from selfplay.run_dir.episodes import episode_to_dict
from selfplay.sampling import Tokenizer
from selfplay.types import Episode, SolveTask, Trajectory


def places(out: str) -> tuple[Path, Path]:
    """(summary, attempts) of `out=`: the named file and one beside it.

    Example: `e.json` has `e.attempts.jsonl` beside it, `e.jsonl` has `e.summary.json`.
    """
    path = Path(out)
    if path.suffix == ".jsonl":
        return path.with_suffix(".summary.json"), path
    return path, path.with_suffix(".attempts.jsonl")


def begin(summary: Path, attempts: Path) -> None:
    """Note that an evaluation is under way. Whoever removed its result wants it anew: attempts
    that are left of it are set aside as `FILE.old`. Raises `UserError`."""
    if summary.exists():
        return
    beside = attempts != summary.with_suffix("").with_suffix(".jsonl")
    if beside and attempts.exists():
        attempts.replace(attempts.with_name(f"{attempts.name}.old"))
    try:
        summary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={summary}: cannot be written ({error.strerror})") from None
    write_atomic(summary, encode_json({"finished": False}) + b"\n")


def tell_known(known: Sequence[Judged], out: str | None) -> None:
    """Say what an evaluation goes on from."""
    num = sum(not judged.errored for judged in known)
    if num and out:
        say(f"going on from {num} attempts in {places(out)[1]}")


class AttemptLog:
    """The lines of one file. Those of another evaluation are refused: `key` says which one it is,
    such as `key_of`."""

    def __init__(self, file: Path, key: Sequence[Any]) -> None:
        self._file = file
        self._evaluation = digest(list(key))

    def is_ours(self) -> bool:
        """Whether no line is of another evaluation."""
        lines = read_json_lines(self._file)
        return all(line.get("evaluation") == self._evaluation for _, line in lines)

    def read(self, tasks: Sequence[SolveTask]) -> list[Judged]:
        """Verdicts on these tasks; of one that was tried again, the last. Mends a torn line."""
        return self.verdicts({task.bug_id: _task_hash(task) for task in tasks})

    def verdicts(self, wanted: Mapping[str, str]) -> list[Judged]:
        """As `read`, on {id: hash} of what is attempted."""
        repair_json_lines(self._file, self._file.with_suffix(".torn"))
        found: dict[tuple[str, int], Judged] = {}
        for number, line in read_json_lines(self._file):
            try:
                if line["evaluation"] != self._evaluation:
                    raise UserError(
                        f"{self._file} holds attempts of another policy, scaffold or seed; "
                        "name another out=, or move that file away"
                    )
                if wanted.get(line["bug_id"]) == line["task"]:
                    judged = Judged(
                        instance_id=line["bug_id"],
                        sample=int(line["sample"]),
                        resolved=bool(line["resolved"]),
                        errored=bool(line["errored"]),
                        reason=str(line["reason"]),
                        share=line.get("test_share"),
                    )
                    found[judged.instance_id, judged.sample] = judged
            except KeyError as error:
                raise UserError(f"{self._file}:{number}: no attempt: {error} is missing") from None
        return list(found.values())

    def writer(self, tokenizer: Tokenizer) -> Callable[[Judged, Attempt], None]:
        """`append`, for `evaluate`; prompts are told in the text of this tokenizer."""
        return lambda judged, attempt: self.append(judged, attempt, tokenizer)

    def append(self, judged: Judged, attempt: Attempt, tokenizer: Tokenizer) -> None:
        """One attempt, on disk when this returns."""
        rollout, outcome = attempt.rollout, attempt.outcome
        trajectory = rollout.trajectory
        episode = Episode(
            episode_id=f"{judged.instance_id}/solver/{judged.sample}",
            group_id=f"{judged.instance_id}/solver",
            role="solver",
            repo=attempt.task.repo,
            task_id=judged.instance_id,
            bug_id=judged.instance_id,
            status=attempt.status,
            reward=None if judged.errored else (1.0 if judged.resolved else -1.0),
            reason=judged.reason,
            trajectory=None,
            answer=rollout.answer,
            policy_version=rollout.policy_version,
            info=rollout.info,
        )
        line: Mapping[str, Any] = episode_to_dict(episode) | {
            "num_tokens": trajectory.num_sampled if trajectory else 0,
            "num_prompt_tokens": trajectory.loss_mask.count(0) if trajectory else 0,
            "sample": judged.sample,
            "resolved": judged.resolved,
            "errored": judged.errored,
            "prompt": _prompt(trajectory, tokenizer),
            "patch": outcome.patch,
            "gold": reverse_patch(attempt.task.artifact.bug_patch),
        }
        self.add({**line, **told_share(outcome)}, _task_hash(attempt.task))

    def add(self, line: Mapping[str, Any], task: str) -> None:
        """One attempt as a line, on disk when this returns; `task`: hash of what is attempted."""
        append_json_lines(self._file, [{**line, "evaluation": self._evaluation, "task": task}])


def _prompt(trajectory: Trajectory | None, tokenizer: Tokenizer) -> str:
    """What stood before the first answer, as the model saw it but for its special tokens."""
    return "" if trajectory is None else tokenizer.decode(trajectory.prompt_ids)


def key_of(policy: PolicyConfig, scaffold: ScaffoldConfig, seed: int) -> list[Any]:
    """What an attempt depends on; not where the server is, or how fast it is asked."""
    shown = dataclasses.asdict(scaffold)
    for name in SCAFFOLDS:  # another scaffold's part
        if name != scaffold.kind:
            shown.pop(name, None)
    shown["agent"].pop("num_open", None)
    names = ["engine", "model", "adapter", "temperature", "top_p", "max_new_tokens"]
    found = [shown, *(getattr(policy, name) for name in names)]
    if policy.engine == "openai":
        keys = ["omit", "rename", "system_role", "body", "max_tokens_key"]
        found += [getattr(policy.openai, key) for key in keys]
    return [seed, found]


def _task_hash(task: SolveTask) -> str:
    artifact = task.artifact
    return digest([artifact.bug_patch, artifact.weakening_patch, list(task.fail_to_pass)])


def digest(value: Any) -> str:
    """Of plain types, to tell whether they are the same."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
