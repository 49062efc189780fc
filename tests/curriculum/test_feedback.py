"""The feedback scaffold: several tries in one episode, on real bugs in real sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from selfplay.bugs.patches.diffs import parse_patch
from selfplay.commands.attempt_log import key_of
from selfplay.commands.compose import make_rollout_context, open_policy
from selfplay.config import FeedbackConfig, PolicyConfig, ScaffoldConfig
from selfplay.curriculum.feedback import FeedbackScaffold
from selfplay.curriculum.injecting import inject
from selfplay.curriculum.scaffold import RolloutContext, Sampling
from selfplay.curriculum.solving import Attempt, solve
from selfplay.errors import SandboxError
from selfplay.repo.prepare import PreparedRepo
from selfplay.roles.feedback.solver import former_row
from selfplay.roles.prompts import render
from selfplay.sampling import SampleRequest
from selfplay.sandbox.base import Job, RunResult
from selfplay.sandbox.pool import SandboxPool
from selfplay.scripted.compact import ByteTokenizer, ScriptedPolicy, asks_for_repair
from selfplay.types import Completion, InjectionTask, SolveTask, Target

from .conftest import PLACES
from .game import BUG_ROUND, FIX_ROUND, NOTHING, OTHER_ROUND, REPO, SCAFFOLD, Book, Move

SAME: Move = ("rest * 2 > step", "rest * 2 > step")
BROKEN: Move = ("rest * 2 > step", "rest * 2 > (step")
OUTSIDE: Move = "900| return 0"
FOREVER: Move = ("rest * 2 > step", "sum(iter(int, 1))")
TRIES = 3


def configured(**keys: int) -> ScaffoldConfig:
    plain = {"max_tries": TRIES, "max_feedback_tokens": 900}
    return replace(SCAFFOLD, kind="feedback", feedback=FeedbackConfig(**{**plain, **keys}))


Play = Callable[..., list[Attempt]]


@pytest.fixture
def play(prepared: PreparedRepo, pool: SandboxPool, bugs: dict[str, SolveTask]) -> Play:
    """play(moves, num_samples, policy=..., task=..., max_tries=..., ...): attempts on a bug."""

    def played(
        moves: Sequence[Move],
        num: int = 1,
        *,
        policy: Book | None = None,
        task: SolveTask | None = None,
        config: ScaffoldConfig | None = None,
        scaffold: Callable[[FeedbackScaffold], None] = lambda opened: None,
        **keys: int,
    ) -> list[Attempt]:
        policy = policy or Book()
        policy.moves["solver"] = list(moves)
        context = make_rollout_context(
            policy, {REPO: prepared}, pool, config or configured(**keys), Sampling(seed=5)
        )
        if isinstance(context.scaffold, FeedbackScaffold):
            scaffold(context.scaffold)
        (group,) = solve(context, [task or bugs["round_to"]], num, salt=0)
        return group

    return played


def told(attempt: Attempt) -> list[str]:
    return [turn["observation"] for turn in attempt.rollout.info["turns"]]


def test_a_conversation_is_one_trajectory_of_the_very_ids(play: Play) -> None:
    """Ids by hand: what was sampled is never tokenised again, and it alone is learned on."""
    tokenizer = ByteTokenizer()
    (attempt,) = play([NOTHING, OTHER_ROUND, FIX_ROUND])
    info, trajectory = attempt.rollout.info, attempt.rollout.trajectory
    assert trajectory is not None and len(trajectory.turns) == 3
    ids = list(tokenizer.render(render("system"), info["user"]))
    mask, logprobs = [0] * len(ids), [0.0] * len(ids)
    for turn, observation in zip(info["turns"], [*told(attempt)[:2], ""], strict=True):
        answer = [*tokenizer.encode(turn["arguments"]["answer"]), tokenizer.end_of_turn_id]
        asked = list(tokenizer.render("", observation)) if observation else []
        ids += answer + asked
        mask += [1] * len(answer) + [0] * len(asked)
        logprobs += [-0.5] * len(answer) + [0.0] * len(asked)
    assert trajectory.token_ids == tuple(ids)
    assert trajectory.loss_mask == tuple(mask)
    assert trajectory.logprobs == tuple(logprobs)
    assert attempt.rollout.answer == info["turns"][2]["arguments"]["answer"]


@pytest.mark.parametrize(
    ("moves", "ending", "num_tries", "reason"),
    [
        ([FIX_ROUND], "passed", 1, ""),
        ([OTHER_ROUND, FIX_ROUND], "passed", 2, ""),
        ([NOTHING, FIX_ROUND], "passed", 2, ""),
        ([SAME, BROKEN, FIX_ROUND], "tries", 3, ""),
        ([OTHER_ROUND, FIX_ROUND, NOTHING], "passed", 2, ""),
        ([OTHER_ROUND] * 3, "tries", 3, "fail_to_pass"),
        ([OTHER_ROUND, OTHER_ROUND, NOTHING], "tries", 3, "bad_format"),
        ([OTHER_ROUND, OTHER_ROUND, SAME], "tries", 3, "no_change"),
    ],
)
def test_endings(play: Play, moves: list[Move], ending: str, num_tries: int, reason: str) -> None:
    (attempt,) = play(moves)
    info, outcome = attempt.rollout.info, attempt.outcome
    assert (info["ending"], info["num_tries"]) == (ending, num_tries)
    assert (outcome.reason, outcome.resolved) == (reason, reason == "")
    assert attempt.status == "completed" and not outcome.errored


@pytest.mark.parametrize(
    ("move", "said"),
    [
        (NOTHING, "That is no edit."),
        (OUTSIDE, "There is no such line: lines go from 1 to"),
        (SAME, "That edit changes nothing."),
        (BROKEN, "With that edit the file cannot be parsed. Your edit was undone."),
        (OTHER_ROUND, "Still wrong. Your edit was undone."),
    ],
)
def test_what_is_told(play: Play, move: Move, said: str) -> None:
    (attempt,) = play([move, FIX_ROUND])
    first, second = told(attempt)
    assert first.startswith(said) and asks_for_repair(first) and second == ""
    assert ("Failing tests:" in first) == (move == OTHER_ROUND)


def test_tests_that_never_end(play: Play, bugs: dict[str, SolveTask]) -> None:
    config = replace(SCAFFOLD, kind="feedback", feedback=FeedbackConfig(max_run_s=3.0))
    (attempt,) = play([FOREVER, FIX_ROUND], config=config)
    assert told(attempt)[0].startswith("The tests do not end within 3 seconds. Your edit")
    assert attempt.outcome.resolved


class Odd(Book):
    """A book whose answer number `at` (from 0) of the solver is changed on its way."""

    def __init__(self, at: int, **changes: object) -> None:
        super().__init__()
        self.at, self.changes = at, changes

    def _answer(self, request: SampleRequest) -> Completion:
        number = self.num_answered["solver"]
        answer = super()._answer(request)
        if number != self.at:
            return answer
        if "problem" in self.changes:
            answer = replace(answer, token_ids=(), logprobs=(), text="")
        return replace(answer, **self.changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("at", "changes", "ending", "status", "reason"),
    [
        (0, {"problem": "content_filter"}, "no_answer", "completed", "content_filter"),
        (1, {"problem": "content_filter"}, "no_answer", "completed", "content_filter"),
        (1, {"problem": "context_length"}, "tokens", "truncated", "context_length"),
        (1, {"problem": "gone", "errored": True}, "errored", "errored", "gone"),
        (2, {"finish_reason": "length"}, "tries", "truncated", "fail_to_pass"),
    ],
)
def test_an_engine_that_stops_early(
    play: Play, at: int, changes: dict[str, object], ending: str, status: str, reason: str
) -> None:
    (attempt,) = play([OTHER_ROUND], policy=Odd(at, **changes))
    assert (attempt.rollout.info["ending"], attempt.status) == (ending, status)
    assert attempt.outcome.reason == reason and not attempt.outcome.resolved
    trajectory = attempt.rollout.trajectory
    assert trajectory is not None, "what was played before stays"
    assert trajectory.token_ids[-1] == 256 or at == 0
    assert len(trajectory.turns) == max(1, at + ("problem" not in changes))


def test_an_answer_that_was_cut_is_told_so_and_closed(play: Play) -> None:
    (attempt,) = play([OTHER_ROUND, FIX_ROUND], policy=Odd(0, finish_reason="length"))
    assert told(attempt)[0].startswith("The answer was cut at ")
    assert attempt.outcome.resolved and attempt.status == "completed"


def test_no_room_for_what_the_tests_said(play: Play) -> None:
    (attempt,) = play([OTHER_ROUND], max_feedback_tokens=20)
    assert (attempt.rollout.info["ending"], attempt.status) == ("tokens", "truncated")
    assert attempt.outcome.reason == "fail_to_pass", "the last edit is graded all the same"


@pytest.mark.parametrize("room", [60, 120, 200, 400, 900])
def test_what_is_told_fits_its_budget(play: Play, room: int) -> None:
    (attempt,) = play([OTHER_ROUND], max_feedback_tokens=room)
    trajectory = attempt.rollout.trajectory
    assert trajectory is not None and len(trajectory.turns) == TRIES
    stretches = zip(trajectory.turns, trajectory.turns[1:], strict=False)
    assert all(later.start - turn.end <= room for turn, later in stretches)
    longest = FeedbackScaffold.longest(
        configured(max_feedback_tokens=room), PolicyConfig(max_new_tokens=80)
    )
    assert len(trajectory.token_ids) <= longest


class Lost:
    """A sandbox whose machine is gone."""

    name = "lost"

    def run(self, job: Job) -> RunResult:
        raise SandboxError("the machine is gone")

    def close(self) -> None:
        pass


def test_a_fault_of_the_sandbox_is_errored_and_never_wrong(play: Play) -> None:
    def lose(opened: FeedbackScaffold) -> None:
        opened.solvers[REPO].runner.sandbox = Lost()

    lost, unread = play([OTHER_ROUND, NOTHING], 2, scaffold=lose, max_tries=2)
    assert (lost.status, lost.rollout.info["ending"]) == ("errored", "errored")
    assert lost.outcome.errored and lost.outcome.reason == "infrastructure: the machine is gone"
    assert unread.status == "completed", "what needs no sandbox goes on"


def test_one_try_is_the_compact_scaffold(play: Play) -> None:
    moves = [FIX_ROUND, OTHER_ROUND, NOTHING, SAME]
    one, compact = Book(), Book()
    tried = play(moves, 4, policy=one, max_tries=1)
    once = play(moves, 4, policy=compact, config=SCAFFOLD)
    assert one.requests == compact.requests
    for left, right in zip(tried, once, strict=True):
        assert left.rollout.trajectory == right.rollout.trajectory
        assert left.outcome == right.outcome and left.status == right.status
    more = Book()
    play(moves, 4, policy=more)
    assert more.requests[0] == compact.requests[0], "the first try is sampled alike"


def test_a_round_is_one_batch_and_equal_edits_are_run_once(play: Play) -> None:
    class Counting(Book):
        def sample(self, requests: Sequence[SampleRequest]) -> list[list[Completion]]:
            batches.append(sum(request.num_samples for request in requests))
            return super().sample(requests)

    batches: list[int] = []
    solvers = []
    moves = [OTHER_ROUND, OTHER_ROUND, FIX_ROUND, NOTHING] + [OTHER_ROUND] * 6
    group = play(
        moves, 4, policy=Counting(), scaffold=lambda opened: solvers.append(opened.solvers[REPO])
    )
    assert batches == [4, 3, 3], "all live episodes of a round"
    assert solvers[0].runner.num_runs == 2, "the last try is graded, not looked at"
    assert [a.rollout.info["ending"] for a in group] == ["tries", "tries", "passed", "tries"]
    assert group[0].outcome is group[1].outcome, "equal last edits are graded once"


def test_seeds_tell_tries_and_episodes_apart(play: Play) -> None:
    first, second = Book(), Book()
    for policy in (first, second):
        play([OTHER_ROUND], 2, policy=policy)
    assert first.requests == second.requests, "the same step again plays the same"
    later = [request.seed for request in first.requests]
    assert len(set(later)) == len(later) == 1 + 2 + 2


def test_injection_is_the_compact_scaffolds(
    prepared: PreparedRepo, pool: SandboxPool, context: RolloutContext
) -> None:
    task = InjectionTask(
        task_id="step0/injector/r/direct/0/1",
        repo=REPO,
        strategy="direct",
        target=Target(path="ledger/money.py", function="round_to"),
    )
    found = []
    for config in (configured(), SCAFFOLD):
        policy = Book([BUG_ROUND])
        opened = make_rollout_context(policy, {REPO: prepared}, pool, config, Sampling())
        found += [(inject(opened, [task], 1)[0], policy.requests)]
    (left, asked), (right, wanted) = found
    assert asked == wanted and left.bug_id == right.bug_id is not None


def test_nothing_of_the_original_is_told(play: Play, bugs: dict[str, SolveTask]) -> None:
    """An edit may look for the original and print it: there is none where it runs."""
    for name, task in bugs.items():
        files = parse_patch(task.artifact.bug_patch)
        removed = {line.strip() for file in files for line in file.removed}
        buggy = PLACES[name][1][1]
        unknown = "if unknown" if buggy.startswith("if") else "unknown"
        (attempt,) = play([(buggy, unknown)], task=task, max_tries=2)
        shown = "\n".join([attempt.rollout.info["user"], *told(attempt)])
        assert "NameError: name 'unknown' is not defined" in shown
        assert not [line for line in removed if line in shown]


def test_an_edit_that_searches_the_sandbox_finds_no_original(
    play: Play, bugs: dict[str, SolveTask], prepared: PreparedRepo
) -> None:
    assert "/opt/selfplay/pycache" in prepared.environment.mounts.values()
    where = "r in ('/opt', '/tmp', '/home', '/testbed') for d, s, fs in __import__('os').walk(r)"
    byte_code = "f.startswith('money.') and f.endswith('.pyc')"
    source = "f.endswith('.py') and b'rest * 2 >' + b'= step:' in open(d + '/' + f, 'rb').read()"
    search = f"[f for {where} for f in fs if {byte_code} or {source}]"
    move = ("sign = -1 if cents < 0 else 1", f"raise AssertionError('found: ' + str({search}))")
    (attempt,) = play([move], max_tries=2)
    assert "E AssertionError: found: []" in told(attempt)[0]


def test_private_tests_are_never_told(play: Play, context: RolloutContext) -> None:
    wanted = InjectionTask(
        task_id="bugs/many",
        repo=REPO,
        strategy="direct",
        target=Target(path="ledger/money.py", function="format_cents"),
    )
    bug: Move = ("divmod(abs(cents), 100)", "divmod(abs(cents), 10)")
    (injection,) = inject(replace(context, policy=Book([bug])), [wanted], 1)
    task = injection.outcome.solve_task
    assert task is not None
    names = {test.split("::")[-1].split("[")[0] for test in task.fail_to_pass}
    other: Move = ("divmod(abs(cents), 10)", "divmod(abs(cents), 1000)")
    for share, num in ((0.01, 1), (1.0, 2)):
        config = replace(configured(max_tries=2), public_share=share)
        (attempt,) = play([other], task=task, config=config)
        assert len([name for name in names if name in told(attempt)[0]]) == num < len(names)


def test_the_scripted_policy_tries_what_it_has_not_tried(
    prepared: PreparedRepo, pool: SandboxPool, bugs: dict[str, SolveTask]
) -> None:
    sampling = Sampling(max_new_tokens=400, seed=4)
    context = make_rollout_context(ScriptedPolicy(), {REPO: prepared}, pool, configured(), sampling)
    (group,) = solve(context, [bugs["round_to"]], 4)
    solved = [a.rollout.info["num_tries"] for a in group if a.outcome.resolved]
    assert 2 in solved, "at its second try"
    for attempt in group:
        answers = [turn["arguments"]["answer"] for turn in attempt.rollout.info["turns"]]
        assert len(set(answers)) == len(answers)


def test_rows_of_an_edited_file_are_those_of_the_prompt() -> None:
    assert former_row("abd", "abcd", 3) == 2 and former_row("abd", "abcd", 0) == 0
    assert former_row("abd", "abcd", 2) == 1, "a new line belongs to the one before it"
    assert former_row("abcd", "ad", 1) == 3
    assert former_row("abcd", "aXcd", 1) == 1
    assert former_row("a", "aa", 1) == 0


def test_evaluations_of_other_scaffolds_go_on_whatever_its_bounds() -> None:
    policy = PolicyConfig()
    fewer = FeedbackConfig(max_tries=2)
    for kind, same in (("compact", True), ("agentic", True), ("feedback", False)):
        one, other = ScaffoldConfig(kind=kind), ScaffoldConfig(kind=kind, feedback=fewer)
        assert (key_of(policy, one, 0) == key_of(policy, other, 0)) == same


@pytest.mark.model
@pytest.mark.slow
def test_a_real_model_is_asked_again_in_its_own_template(
    prepared: PreparedRepo, pool: SandboxPool, bugs: dict[str, SolveTask]
) -> None:
    policy = open_policy(PolicyConfig(adapter=None))
    config = ScaffoldConfig(kind="feedback")
    sampling = Sampling(max_new_tokens=24, seed=1)
    context = make_rollout_context(policy, {REPO: prepared}, pool, config, sampling)
    (group,) = solve(context, [bugs["round_to"]], 3)
    tokenizer = policy.tokenizer
    for attempt in group:
        trajectory = attempt.rollout.trajectory
        assert trajectory is not None and len(trajectory.turns) == TRIES
        ids = trajectory.token_ids
        first = tokenizer.render(render("system"), attempt.rollout.info["user"])
        assert ids[: trajectory.turns[0].start] == first
        stretches = zip(trajectory.turns, trajectory.turns[1:], told(attempt), strict=False)
        for turn, later, said in stretches:
            end = tokenizer.end_of_turn_id
            between = ids[turn.end : later.start]
            whole = tokenizer.render("s", said)
            follows = whole[whole.index(end) + 1 :]
            closed = ids[turn.end - 1] == end
            assert between == (follows if closed else (end, *follows))
        told_ids = [ids[t.start : t.end] for t in trajectory.turns]
        answers = [turn["arguments"]["answer"] for turn in attempt.rollout.info["turns"]]
        assert [tokenizer.decode(ids) for ids in told_ids] == answers
