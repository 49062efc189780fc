"""The agent loop in real sandboxes: aligned tokens, every ending, and no run that stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfplay.agent.driver import Places, play
from selfplay.agent.fenced import FencedRenderer
from selfplay.agent.loop import AgentEpisode
from selfplay.chat import ToolSpec
from selfplay.curriculum.agentic import to_rollout
from selfplay.errors import PolicyError, SandboxError
from selfplay.export.traces import traces
from selfplay.run_dir.episodes import episode_from_dict, episode_to_dict
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.pool import SandboxPool
from selfplay.sandbox.session.session import Session
from selfplay.scripted.compact import ByteTokenizer
from selfplay.types import Completion, Episode, Trajectory

from .conftest import MakeEpisode, Told

LOOK = "```bash\nls\n```"
SUBMIT = "```submit\n```"


def finish(pool: SandboxPool, policy: Told, *episodes: AgentEpisode, num_open: int = 4) -> None:
    play(policy, episodes, pool, Places(num_open))
    for episode in episodes:
        check(episode)


def check(episode: AgentEpisode) -> None:
    """The invariants of a finished episode, on every token."""
    assert episode.ending is not None
    trajectory = episode.trajectory
    if trajectory is None:
        assert episode.turns == []
        return
    assert len(trajectory.turns) == len(episode.turns) or episode.ending == "errored"
    end = ByteTokenizer.end_of_turn_id
    ids = trajectory.token_ids
    for turn, following in zip(trajectory.turns, [*trajectory.turns[1:], None], strict=True):
        sampled = ids[turn.start : turn.end]
        assert end not in sampled[:-1]
        if following is not None:  # the turn, then one end if it had none, then the observation
            between = ids[turn.end : following.start]
            assert (sampled[-1:] + between).count(end) == 2
            assert set(trajectory.loss_mask[turn.end : following.start]) == {0}
            assert set(trajectory.logprobs[turn.end : following.start]) == {0.0}
    assert all(lp < 0 for lp, m in zip(trajectory.logprobs, trajectory.loss_mask, strict=True) if m)


class Rewriting(FencedRenderer):
    """Marks the newest message of the user, as some templates do; every other time, if `rarely`."""

    rewrites = True

    def __init__(self, rarely: bool = False) -> None:
        super().__init__(ByteTokenizer())
        self._rarely = rarely

    def rewritten(
        self,
        system: str,
        user: str,
        tools: Sequence[ToolSpec],
        turns: Sequence[tuple[Sequence[int], str]],
    ) -> tuple[int, ...]:
        number = len(turns) // 2 if self._rarely else len(turns)
        named = f"{system} {number}" if number else system
        return super().rewritten(named, user, tools, turns)


@pytest.mark.parametrize(("rarely", "sizes"), [(False, [1, 1, 1, 1]), (True, [2, 2])])
def test_a_chat_that_is_rewritten_becomes_several_samples(
    pool: SandboxPool, make_episode: MakeEpisode, rarely: bool, sizes: list[int]
) -> None:
    """A new one begins where the prefix really changes; each holds what was sampled, exactly."""
    episode = make_episode()
    episode.renderer = Rewriting(rarely)
    policy = Told([LOOK, "Hm. " + LOOK, LOOK, SUBMIT], version=4)
    play(policy, [episode], pool, Places(4))
    assert episode.ending == "submitted" and len(policy.requests) == 4
    trajectory = episode.trajectory
    assert trajectory is not None and [len(piece.turns) for piece in trajectory.pieces] == sizes
    turns = [(piece, turn) for piece in trajectory.pieces for turn in piece.turns]
    for (piece, turn), request, said in zip(turns, policy.requests, policy.answers, strict=True):
        assert piece.token_ids[: turn.start] == request.prompt_ids
        sampled = piece.token_ids[turn.start : turn.end]
        assert ByteTokenizer().decode(sampled).startswith(said)
        assert all(lp < 0 for lp in piece.logprobs[turn.start : turn.end])
    assert trajectory.num_sampled == sum(turn.end - turn.start for _, turn in turns)
    rollout = to_rollout(episode, 9)
    assert rollout.policy_version == 4  # the oldest of all pieces
    stored = episode_of(rollout.trajectory)
    assert episode_from_dict(episode_to_dict(stored)) == stored
    lines = list(traces(stored, ByteTokenizer()))
    assert [line["piece"] for line in lines] == list(range(len(sizes)))
    assert [sum(line["loss_mask"]) for line in lines] == [
        sum(piece.loss_mask) for piece in trajectory.pieces
    ]
    assert "shop.py" in lines[-1]["messages"][-2]["content"]


def episode_of(trajectory: Trajectory | None) -> Episode:
    assert trajectory is not None
    return Episode(
        episode_id="e", group_id="g", role="solver", repo="r", task_id="t", bug_id="b",
        status="completed", reward=1.0, reason="", trajectory=trajectory, answer="",
        policy_version=4,
    )  # fmt: skip


def test_a_whole_episode(pool: SandboxPool, make_episode: MakeEpisode) -> None:
    seen: list[bytes] = []
    episode = make_episode(lambda session: seen.append(session.read("new")))
    edit = "Now I know.\n```create new\nhello\n```"
    policy = Told([LOOK, edit, SUBMIT], version=4)
    finish(pool, policy, episode)
    assert (episode.ending, episode.status, seen) == ("submitted", "completed", [b"hello\n"])
    assert [turn.tool for turn in episode.turns] == ["bash", "create", "submit"]
    assert episode.turns[1].thought == "Now I know."
    assert "shop.py\n[exit code 0]" in episode.turns[0].observation
    trajectory = episode.trajectory
    assert trajectory is not None and trajectory.policy_version == 4
    assert [turn.policy_version for turn in trajectory.turns] == [4, 5, 6]
    first, second, third = policy.requests
    assert second.prompt_ids[: len(first.prompt_ids)] == first.prompt_ids
    assert third.prompt_ids == trajectory.token_ids[: len(third.prompt_ids)]
    assert len({request.seed for request in policy.requests}) == 3
    text = ByteTokenizer().decode(third.prompt_ids)
    assert "[127 turns and about" in text and "new: written.\n[126 turns and about" in text


@pytest.mark.parametrize(
    ("answers", "limits", "ending", "status"),
    [
        ([LOOK], {"max_turns": 3}, "turns", "truncated"),
        (["```bash\nseq 3000\n```"], {"max_tokens": 6000}, "tokens", "truncated"),
        (["```bash\nsleep 0.4\n```"], {"wall_s": 0.3}, "wall_time", "truncated"),
        (["no call"], {"max_bad_calls": 2}, "bad_calls", "completed"),
        (["x" * 500], {"max_turn_tokens": 90, "max_bad_calls": 3}, "bad_calls", "completed"),
        (["x" * 9000 + "…"], {"max_tokens": 4000}, "tokens", "truncated"),
        ([SUBMIT], {}, "submitted", "completed"),
    ],
)
def test_each_limit_has_its_ending(
    pool: SandboxPool,
    make_episode: MakeEpisode,
    answers: Sequence[str],
    limits: dict[str, Any],
    ending: str,
    status: str,
) -> None:
    episode = make_episode(**limits)
    finish(pool, Told(answers), episode)
    assert (episode.ending, episode.status) == (ending, status)
    if episode.trajectory is not None and "max_tokens" in limits:
        assert len(episode.trajectory.token_ids) <= limits["max_tokens"]


def test_bad_calls_are_forgiven_after_a_good_one(
    pool: SandboxPool, make_episode: MakeEpisode
) -> None:
    episode = make_episode(max_bad_calls=2)
    finish(pool, Told(["?", LOOK, "?", LOOK, SUBMIT]), episode)
    assert episode.ending == "submitted"
    assert "[1 more calls of this kind end the task]" in episode.turns[0].observation


def test_a_task_that_does_not_fit_costs_one_episode(
    pool: SandboxPool, make_episode: MakeEpisode
) -> None:
    big, small = make_episode(user="x" * 9000, max_tokens=4000), make_episode()
    finish(pool, Told([SUBMIT]), big, small)
    assert (big.ending, big.trajectory, small.ending) == ("tokens", None, "submitted")


def test_a_refused_submission_goes_on(pool: SandboxPool, make_episode: MakeEpisode) -> None:
    answers: list[str | None] = ["Refused: no.", None]
    episode = make_episode(lambda session: answers.pop(0))
    finish(pool, Told([SUBMIT]), episode)
    assert episode.ending == "submitted" and len(episode.turns) == 2
    assert episode.turns[0].observation == "Refused: no."


def test_a_lost_sandbox_is_errored_and_nothing_else_is(
    pool: SandboxPool, make_episode: MakeEpisode
) -> None:
    lost, fine = make_episode(), make_episode()
    take = lost.take

    def cut(completion: Any) -> None:
        assert lost._session is not None
        lost._session.close()
        take(completion)

    lost.take = cut  # type: ignore[method-assign]
    finish(pool, Told([LOOK, SUBMIT]), lost, fine)
    assert (lost.status, fine.status) == ("errored", "completed")
    assert lost.error and lost.trajectory is not None


def test_a_sandbox_that_does_not_open_is_errored(
    pool: SandboxPool, make_episode: MakeEpisode
) -> None:
    def fail() -> Session:
        raise SandboxError("no sandbox today")

    broken, fine = make_episode(), make_episode()
    object.__setattr__(broken.task, "open", fail)
    finish(pool, Told([SUBMIT]), broken, fine)
    assert (broken.ending, broken.error, fine.ending) == (
        "errored",
        "no sandbox today",
        "submitted",
    )


def test_memory_used_up_is_the_agents_own_doing(
    pool: SandboxPool, make_episode: MakeEpisode
) -> None:
    hog = "```bash\nwhile :; do head -c 900M /dev/zero > f$((i++)); done\n```"
    episode = make_episode(quota=Quota(timeout_s=60, memory=128 << 20), command_s=5, max_turns=1)
    finish(pool, Told([hog]), episode)
    assert episode.status == "truncated" and episode.ending in ("turns", "sandbox_spent")


@pytest.fixture
def counted(
    make_episode: MakeEpisode, agent_sandbox: Sandbox, agent_environment: Environment
) -> tuple[Callable[[int], list[AgentEpisode]], list[int]]:
    """(makes so many episodes, [sandboxes that are open now, the most that were at once])."""
    counts, lock = [0, 0], threading.Lock()

    def start() -> Session:
        with lock:
            counts[0] += 1
            counts[1] = max(counts)
        return Session(agent_sandbox, Job(environment=agent_environment, argv=()))

    def submit(session: Session) -> None:
        with lock:
            counts[0] -= 1

    def make(number: int) -> list[AgentEpisode]:
        episodes = [make_episode(submit) for _ in range(number)]
        for episode in episodes:
            object.__setattr__(episode.task, "open", start)
        return episodes

    return make, counts


def test_only_so_many_sandboxes_are_open(
    pool: SandboxPool, counted: tuple[Callable[[int], list[AgentEpisode]], list[int]]
) -> None:
    make, counts = counted
    episodes = make(7)
    finish(pool, Told([LOOK, SUBMIT]), *episodes, num_open=3)
    assert counts == [0, 3] and all(e.ending == "submitted" for e in episodes)


def test_rounds_that_are_alive_share_the_places(
    pool: SandboxPool, counted: tuple[Callable[[int], list[AgentEpisode]], list[int]]
) -> None:
    """The second begins while the first has all places; whoever fails gives its own back."""
    make, counts = counted
    rounds, places = [make(5), make(5), make(3)], Places(3)
    second = threading.Thread(
        target=lambda: play(Told([LOOK, SUBMIT]), rounds[1], pool, places), daemon=True
    )

    class Begins(Told):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            if not self.requests:
                second.start()
                second.join(0.5)
            return super().sample(requests)

    class Fails(Told):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            raise PolicyError("gone")

    play(Begins([LOOK, SUBMIT]), rounds[0], pool, places)
    second.join(60)
    assert counts == [0, 3]
    assert all(e.ending == "submitted" for episodes in rounds[:2] for e in episodes)
    with pytest.raises(PolicyError):
        play(Fails([]), rounds[2], pool, places)
    assert places.take(9, wait=True) == 3


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    answers=st.lists(
        st.one_of(
            st.text(alphabet="`=\nsubmitbash edcr/…", max_size=60),
            st.sampled_from([LOOK, "```edit\n```", "```bash\nexit 3\n```", "```create /\nx\n```"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_nothing_that_a_model_says_stops_a_run(
    pool: SandboxPool, make_episode: MakeEpisode, answers: list[str]
) -> None:
    episode = make_episode(max_turns=5, max_tokens=5000, max_bad_calls=3)
    finish(pool, Told(answers), episode)
    assert episode.status in ("completed", "truncated")


def test_fixture_path_is_free_of_leftovers(agent_environment: Environment) -> None:
    assert sorted(p.name for p in Path(agent_environment.tree).iterdir()) == ["dos.txt", "shop.py"]
