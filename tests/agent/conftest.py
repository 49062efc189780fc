"""A small tree, sessions on it in a real sandbox, and a policy that answers what it is told."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from selfplay.agent.fenced import FencedRenderer
from selfplay.agent.loop import AgentEpisode, AgentTask
from selfplay.config import AgentLimits
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.select import open_sandbox
from selfplay.sandbox.session.session import Session
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion

RENDERER = FencedRenderer(ByteTokenizer())
ROOMY = Quota(timeout_s=300)


@pytest.fixture(scope="session")
def agent_environment() -> Iterator[Environment]:
    folder = Path(tempfile.mkdtemp(prefix="selfplay-tests-"))
    tree = folder / "tree"
    tree.mkdir()
    (tree / "shop.py").write_text("def f(x):\n    y = x\n    y = x\n    return y\n")
    (tree / "dos.txt").write_bytes(b"one\r\ntwo\r\nthree")
    folder.chmod(0o755)
    make_readable(tree)
    path = f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"
    yield Environment(tree=tree, mounts=host_mounts(), path=path, digest=str(tree))
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def agent_sandbox() -> Iterator[Sandbox]:
    found = open_sandbox("bubblewrap")
    yield found
    found.close()


@pytest.fixture(scope="session")
def pool(agent_sandbox: Sandbox) -> SandboxPool:
    return SandboxPool(agent_sandbox, num_workers=2)


@pytest.fixture
def session(agent_sandbox: Sandbox, agent_environment: Environment) -> Iterator[Session]:
    with Session(agent_sandbox, Job(environment=agent_environment, argv=())) as opened:
        yield opened


class Told:
    """Answers from a list for each episode, by the number of answers that its prompt holds.

    An answer that ends with a "…" is cut there: it has no end-of-turn token.
    """

    def __init__(self, answers: Sequence[str], version: int = 0) -> None:
        self.answers, self.version = list(answers), version
        self.tokenizer = ByteTokenizer()
        self.requests: list[SampleRequest] = []

    def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
        self.requests += requests
        return [[self._answer(request)] for request in requests]

    def _answer(self, request: SampleRequest) -> Completion:
        turn = request.prompt_ids.count(259) - 1
        text = self.answers[min(turn, len(self.answers) - 1)]
        ids = self.tokenizer.encode(text.removesuffix("…"))
        ids = ids if text.endswith("…") else (*ids, self.tokenizer.end_of_turn_id)
        cut = ids[: request.max_new_tokens]
        return Completion(
            token_ids=cut,
            logprobs=tuple(-0.5 - i % 7 for i in range(len(cut))),
            text=text,
            finish_reason="stop" if cut[-1:] == (256,) else "length",
            policy_version=self.version + turn,
        )


MakeEpisode = Callable[..., AgentEpisode]


@pytest.fixture
def make_episode(agent_sandbox: Sandbox, agent_environment: Environment) -> Iterator[MakeEpisode]:
    """make_episode(submit=..., **limits): an episode on the small tree."""
    made: list[AgentEpisode] = []

    def make(
        submit: Callable[[Session], str | None] = lambda session: None,
        user: str = "Do it.",
        quota: Quota = ROOMY,
        **limits: float,
    ) -> AgentEpisode:
        job = Job(environment=agent_environment, argv=(), quota=quota)
        task = AgentTask(
            name=f"task{len(made)}",
            system="You work.",
            user=user,
            open=lambda: Session(agent_sandbox, job),
            submit=submit,
            seed=len(made),
        )
        bounds = AgentLimits(**limits)  # type: ignore[arg-type]
        made.append(AgentEpisode(task=task, renderer=RENDERER, limits=bounds))
        return made[-1]

    yield make
    for episode in made:
        episode.close()
