"""Evaluation of a policy with a known success rate: scores, pass@k, and its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from selfplay.curriculum.evaluation import Judged, evaluate
from selfplay.curriculum.scaffold import RolloutContext
from selfplay.errors import PolicyError
from selfplay.sampling import ScoreRequest
from selfplay.types import SolveTask

from .game import FIX_FORMAT, FIX_ROUND, NOTHING, Book, Knowing, Move

FIX_COMPOUND: Move = ("years + per_year", "years * per_year")


def test_pass_at_k_by_hand(context: RolloutContext, bugs: dict[str, SolveTask]) -> None:
    """Four attempts each: 2, 4 and 0 resolved. pass@1 = (1/2 + 1 + 0) / 3 = 1/2; pass@4 = 2/3."""
    tasks = [bugs[name] for name in ("round_to", "format_cents", "compound")]
    moves = [FIX_ROUND, NOTHING, FIX_ROUND, NOTHING, *[FIX_FORMAT] * 4, *[NOTHING] * 4]
    told: list[tuple[int, int]] = []
    result = evaluate(
        replace(context, policy=Book(solve=moves)), tasks, 4, lambda *where: told.append(where)
    )
    assert [(s.num_resolved, s.num_judged, s.num_errored) for s in result.scores] == [
        (2, 4, 0), (4, 4, 0), (0, 4, 0),
    ]  # fmt: skip
    assert result.pass_at_1.mean == pytest.approx(0.5)
    assert result.pass_at_n.mean == pytest.approx(2 / 3)
    assert result.reasons == {"resolved": 6, "bad_format": 6}
    assert told[-1] == (3, 3)
    document = result.to_json()
    assert document["num_tasks"] == 3 and document["pass@4"]["mean"] == pytest.approx(2 / 3)
    assert document["tasks"][0] == {
        "instance_id": tasks[0].bug_id, "repo": tasks[0].repo, "n": 4, "resolved": 2, "errored": 0,
    }  # fmt: skip


def test_errored_attempts_are_counted_apart(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    """Two attempts on record were lost and are tried again; the others keep their verdicts."""
    task = bugs["round_to"]
    known = [
        Judged(instance_id=task.bug_id, sample=i, resolved=i == 0, errored=i > 1, reason="")
        for i in range(4)
    ]
    policy = Book(solve=[FIX_ROUND, NOTHING])
    seen: list[int] = []
    result = evaluate(
        replace(context, policy=policy), [task], 4, known=known,
        on_attempt=lambda judged, attempt: seen.append(judged.sample),
    )  # fmt: skip
    assert seen == [2, 3]
    (score,) = result.scores
    assert (score.num_resolved, score.num_judged, score.num_errored) == (2, 4, 0)
    assert policy.num_answered["solver"] == 2


def test_a_repository_that_is_gone_is_no_verdict(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    here, gone = bugs["compound"], replace(bugs["round_to"], repo="gone")
    policy = Book(solve=[FIX_COMPOUND])
    result = evaluate(replace(context, policy=policy), [gone, here], 2, lost={"gone": "no such"})
    assert [(s.num_judged, s.num_errored) for s in result.scores] == [(0, 2), (2, 0)]
    assert result.pass_at_1.mean == 1.0, "of the tasks that could be judged"
    assert result.reasons == {"infrastructure": 2, "resolved": 2}


def test_two_evaluations_ask_the_same(context: RolloutContext, bugs: dict[str, SolveTask]) -> None:
    """Draws depend on the context's seed alone, not on what was played before."""
    tasks = list(bugs.values())
    first, second = Book(solve=[NOTHING]), Book(solve=[NOTHING])
    one = evaluate(replace(context, policy=first), tasks, 2)
    two = evaluate(replace(context, policy=second), tasks, 2)
    assert first.requests == second.requests and one == two
    assert len({request.seed for request in first.requests}) == len(tasks)
    assert one.pass_at_1.mean == one.pass_at_n.mean == 0.0


def test_p_gold_by_hand(context: RolloutContext, bugs: dict[str, SolveTask]) -> None:
    """0.3 and 0.01: told with attempts and without any, at temperature 1 whatever is sampled at;
    what was attempted before is weighed too."""
    tasks = [bugs[name] for name in ("round_to", "format_cents")]
    cold = replace(context, sampling=replace(context.sampling, temperature=0.0))
    policy = Knowing([], [NOTHING])
    told: list[tuple[int, int]] = []
    alone = evaluate(replace(cold, policy=policy), tasks, 0, lambda *where: told.append(where))
    assert [s.p_gold for s in alone.scores] == pytest.approx([0.3, 0.01])
    assert alone.p_gold is not None and alone.p_gold.mean == pytest.approx(0.155)
    assert policy.heats == {1.0} and not policy.num_answered and told[-1] == (2, 2)
    document = alone.to_json()
    assert not [name for name in document if name.startswith("pass@")]
    assert document["tasks"][1]["p_gold"] == pytest.approx(0.01)
    known = [Judged(instance_id=tasks[0].bug_id, sample=0, resolved=True, errored=False, reason="")]
    both = evaluate(replace(context, policy=policy), tasks, 1, known=known)
    assert [s.p_gold for s in both.scores] == [s.p_gold for s in alone.scores]
    assert [s.num_resolved for s in both.scores] == [1, 0] and "pass@1" in both.to_json()


def test_a_policy_that_fails_to_weigh_one_answer_loses_nothing_else(
    context: RolloutContext, bugs: dict[str, SolveTask], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Knowing):
        def score(self, requests: Sequence[ScoreRequest]) -> list[tuple[float, ...]]:
            if any("rest * 2" in self.tokenizer.decode(r.answer_ids) for r in requests):
                raise PolicyError("out of order")
            return super().score(requests)

    tasks = [bugs[name] for name in ("round_to", "format_cents")]
    result = evaluate(replace(context, policy=Failing([], [FIX_ROUND])), tasks, 1)
    assert [s.p_gold for s in result.scores] == [None, pytest.approx(0.01)]
    assert [s.num_judged for s in result.scores] == [1, 1] and result.stopped is None
    assert "out of order" in caplog.text


def test_an_engine_that_cannot_weigh_answers_says_nothing_of_it(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    result = evaluate(replace(context, policy=Book(solve=[NOTHING])), [bugs["round_to"]], 1)
    assert result.p_gold is None and "p_gold" not in result.to_json()


def test_what_is_weighed_alone_is_not_attempted(
    context: RolloutContext, bugs: dict[str, SolveTask]
) -> None:
    policy = Knowing([], [FIX_ROUND])
    tasks, weighed = [bugs["round_to"]], [bugs["format_cents"]]
    told: list[tuple[int, int]] = []
    result = evaluate(
        replace(context, policy=policy), tasks, 2, lambda *where: told.append(where),
        weighed=weighed,
    )  # fmt: skip
    assert [(s.num_judged, s.p_gold) for s in result.scores] == [
        (2, pytest.approx(0.3)), (0, pytest.approx(0.01)),
    ]  # fmt: skip
    assert result.pass_at_1.mean == 1.0 and told[-1] == (2, 2)
