"""The scripted policy: byte-exact tokens, deterministic and varied answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfplay.compact.edits import parse_edit, parse_listing
from selfplay.repo.languages.python_source import same_code
from selfplay.sampling import Policy, SampleRequest
from selfplay.scripted.compact import ByteTokenizer, ScriptedPolicy, candidate_answers
from selfplay.types import Completion

LISTING = """# Clamp x.
1| def clamp(x, low, high):
2|     if x < low:
3|         return low
4|     return min(x, high)"""
INJECT = LISTING + "\n\nPlant a bug: condition in line 2"
REMOVE = LISTING + "\n\nPlant a bug: delete branch in line 2"
SOLVE = LISTING + "\n\nFailing tests:\ndef test():\n    assert clamp(1, 0, 2) == 1\n\nFix the bug"


@given(st.text(), st.text())
def test_tokenizer_round_trip(system: str, user: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(user)) == user
    ids = tokenizer.render(system, user)
    assert tokenizer.decode(ids) == system + user
    assert tokenizer.user_text(ids) == user
    assert tokenizer.end_of_turn_id not in tokenizer.encode(user)


def answers(prompt: str, num_samples: int = 8, seed: int = 0, limit: int = 200) -> list[Completion]:
    policy: Policy = ScriptedPolicy()
    request = SampleRequest(
        prompt_ids=policy.tokenizer.render("", prompt),
        num_samples=num_samples,
        max_new_tokens=limit,
        seed=seed,
    )
    (found,) = policy.sample([request])
    return found


def test_injections_change_the_code_as_asked() -> None:
    texts = {c.text for c in answers(INJECT)}
    assert {"2|     if x <= low:", "2|     if x > low:", "2|     if not x < low:"} == texts
    assert {"2-3", "2|     return low\n3-"} >= {c.text for c in answers(REMOVE, seed=1)}


def test_every_answer_parses() -> None:
    listing = parse_listing(LISTING)
    for prompt in (INJECT, REMOVE, SOLVE):
        for text in candidate_answers(prompt):
            (changed,) = parse_edit(text, listing).values()
            assert not same_code(changed, listing.sources["0"])


def test_answers_are_deterministic_and_vary_with_seed_and_index() -> None:
    assert answers(SOLVE) == answers(SOLVE)
    assert len({c.text for c in answers(SOLVE)}) == len(candidate_answers(SOLVE)) == 5
    assert answers(SOLVE, seed=1)[0] != answers(SOLVE, seed=2)[0]


def test_the_solver_can_find_a_reversal_without_being_told() -> None:
    broken = SOLVE.replace("x < low", "x > low")
    assert "2|     if x < low:" in candidate_answers(broken)


def test_completions_are_aligned_and_end() -> None:
    for completion in answers(SOLVE):
        assert len(completion.token_ids) == len(completion.logprobs)
        assert completion.token_ids[-1] == ByteTokenizer.end_of_turn_id
        assert completion.finish_reason == "stop"
    cut = answers(SOLVE, limit=5)[0]
    assert (len(cut.token_ids), cut.finish_reason) == (5, "length")


@given(st.text(alphabet="1234| \ndefx():=+-'\"", max_size=60))
def test_any_prompt_gets_an_answer(prompt: str) -> None:
    assert candidate_answers(prompt)
    assert candidate_answers(prompt + "\n\nFix the bug")


def test_a_listing_that_ends_in_the_middle_is_used_as_far_as_it_parses() -> None:
    cut = "1| def f(a):\n2|     b = a + 1\n3|     if b < a:\n\nPlant a bug: number in line 2"
    assert "2|     b = a + 2" in candidate_answers(cut)
