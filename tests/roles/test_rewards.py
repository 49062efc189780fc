"""Rewards by hand (arXiv 2512.18552)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.patches.diffs import reverse_patch
from selfplay.compact.edits import EditError, Excerpt, Listing, parse_edit
from selfplay.config import RewardConfig, TrainConfig, load_config
from selfplay.errors import UserError
from selfplay.roles.credit import partial_credit
from selfplay.roles.rewards import (
    band_reward,
    injector_reward,
    make_injector_reward,
    make_solver_reward,
    patch_similarity_reward,
    power_reward,
    solver_reward,
)


def expected_reward(reward: Callable[[float], float], p: float, num_attempts: int) -> float:
    """Mean of `reward(solve rate)` when each of `num_attempts` succeeds with probability `p`."""
    return sum(
        math.comb(num_attempts, k) * p**k * (1 - p) ** (num_attempts - k) * reward(k / num_attempts)
        for k in range(num_attempts + 1)
    )


def test_solver() -> None:
    assert (solver_reward(True), solver_reward(False)) == (1.0, -1.0)


@pytest.mark.parametrize(
    ("solved", "reward"),
    [(0, -0.8), (1, 0.775), (2, 0.55), (4, 0.1), (5, -0.125), (7, -0.575), (8, -0.8)],
)
def test_injector_for_a_group_of_8(solved: int, reward: float) -> None:
    assert injector_reward(solved / 8) == pytest.approx(reward)


def curve(num_attempts: int) -> list[float]:
    """Expected reward at p = 0, 0.001, ..., 1."""
    return [expected_reward(injector_reward, k / 1000, num_attempts) for k in range(1001)]


def test_expected_reward_of_a_group_of_8() -> None:
    values = curve(8)
    assert max(values) == pytest.approx(0.37, abs=0.005)
    assert values.index(max(values)) / 1000 == pytest.approx(0.26, abs=0.01)
    positive = [k / 1000 for k, value in enumerate(values) if value > 0]
    assert positive[0] == pytest.approx(0.09, abs=0.005)
    assert positive[-1] == pytest.approx(0.55, abs=0.005)


def test_expected_reward_of_a_group_of_4() -> None:
    assert max(curve(4)) == pytest.approx(0.05, abs=0.005)


def test_expected_reward_by_hand() -> None:
    """Two attempts at p = 1/2: a quarter none, half one of two (reward 0.1), a quarter both."""
    assert expected_reward(injector_reward, 0.5, 2) == pytest.approx(-0.4 + 0.05)


def test_invalid_is_worst_in_every_variant() -> None:
    for name in ("solve_rate", "consistency", "band", "power"):
        reward = make_injector_reward(RewardConfig(injector=name))
        assert reward(False, None) == -1.0
        assert all(reward(True, k / 8) >= -1.0 for k in range(9))


def test_variants() -> None:
    assert make_injector_reward(RewardConfig())(True, 0.125) == pytest.approx(0.775)
    assert make_injector_reward(RewardConfig(alpha=0.5))(True, 1.0) == -0.5
    consistency = make_injector_reward(RewardConfig(injector="consistency"))
    assert consistency(True, None) == consistency(True, 0.0) == 1.0
    assert [band_reward(k / 8, 0.1, 0.6) for k in (0, 1, 4, 5)] == [-1, 1, 1, -1]
    assert power_reward(0.5, 1, 1) == power_reward(0.25, 1, 3) == pytest.approx(1.0)
    assert power_reward(0.25, 1, 1) == pytest.approx(0.75)
    assert power_reward(0.0, 1, 2) == power_reward(1.0, 1, 2) == 0.0


def test_misuse() -> None:
    with pytest.raises(UserError, match="solve_rate"):
        make_injector_reward(RewardConfig(injector="best"))
    with pytest.raises(UserError, match="positive"):
        make_injector_reward(RewardConfig(injector="power", a=0.0))
    with pytest.raises(ValueError, match="solve rate"):
        make_injector_reward(RewardConfig())(True, None)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        injector_reward(1.5)


@given(st.integers(1, 16), st.floats(0, 1))
def test_expected_reward_is_bounded(num_attempts: int, p: float) -> None:
    assert -0.8 - 1e-9 <= expected_reward(injector_reward, p, num_attempts) <= 1.0


@pytest.mark.parametrize(
    ("name", "solved", "reward"),
    [
        ("solve_rate", 2, 1 - 1.8 / 4),
        ("solve_rate", 8, -0.8),
        ("consistency", 0, 1.0),
        ("consistency", 3, 1.0),
        ("band", 0, -1.0),  # 0 < 0.1
        ("band", 4, 1.0),  # 0.1 <= 0.5 <= 0.6
        ("band", 5, -1.0),  # 0.625 > 0.6
        ("power", 2, 0.25 * 0.75**2 / (4 / 27)),  # peak of s (1 - s)^2: 1/3 * 4/9 = 4/27
        ("power", 4, 0.5 * 0.25 / (4 / 27)),
        ("power", 8, 0.0),
    ],
)
def test_each_injector_reward_by_hand(name: str, solved: int, reward: float) -> None:
    """The shipped configurations on a valid bug that `solved` of 8 attempts repaired."""
    config = load_config(TrainConfig, "train", [f"reward={name}"]).reward
    assert make_injector_reward(config)(True, solved / 8) == pytest.approx(reward)
    assert make_injector_reward(config)(False, None) == -1.0


def diff(path: str, old: str, new: str) -> str:
    return (
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
        f"@@ -1,2 +1,2 @@\n-{old}\n+{new}\n same\n"
    )


def test_patch_similarity_by_hand() -> None:
    gold = diff("a.py", "bad", "god")
    assert patch_similarity_reward(gold, gold) == 1.0
    # "@@ -1,2 +1,2 @@", "-bad", "+god" and " same" with their ends are 32 characters; "gad" shares
    # all but the middle letter of "+god": 31 of 32 in both, 2 * 31 / 64
    assert patch_similarity_reward(diff("a.py", "bad", "gad"), gold) == pytest.approx(31 / 32)
    # one of two files is right, the other only in the prediction
    both = gold + diff("b.py", "x", "y")
    assert patch_similarity_reward(both, gold) == pytest.approx(0.5)
    assert patch_similarity_reward(diff("b.py", "x", "y"), gold) == 0.0
    assert patch_similarity_reward("", gold) == -1.0
    assert patch_similarity_reward("no diff at all", gold) == -1.0


EMPTY = "diff --git a/{0} b/{0}\nnew file mode 100644\nindex 0000000..e69de29\n"
MODE = "diff --git a/a.py b/a.py\nold mode 100644\nnew mode 100755\n"


@pytest.mark.parametrize(
    ("predicted", "gold", "reward"),
    [
        # what changes no text is like nothing: each empty file would have counted as a full match
        ("".join(map(EMPTY.format, "bcdefghij")), diff("a.py", "bad", "god"), 0.0),
        (MODE, diff("a.py", "bad", "god"), 0.0),
        (diff("a.py", "bad", "god") + EMPTY.format("b"), diff("a.py", "bad", "god"), 0.5),
        # a mode that the gold patch changes is no text that could be predicted
        (diff("b.py", "bad", "god"), diff("b.py", "bad", "god") + MODE, 1.0),
        (diff("b.py", "bad", "god") + MODE, diff("b.py", "bad", "god") + MODE, 1.0),
        # of SWE-RL's own tests: a new file alone, and beside one of the two right files
        (EMPTY.format("c.py") + "--- /dev/null\n+++ b/c.py\n@@ -0,0 +1 @@\n+# dummy\n",
         diff("a.py", "bad", "god"), 0.0),
        (EMPTY.format("c.py") + "--- /dev/null\n+++ b/c.py\n@@ -0,0 +1 @@\n+# dummy\n"
         + diff("b.py", "x", "y"), diff("a.py", "bad", "god") + diff("b.py", "x", "y"), 1 / 3),
    ],
)  # fmt: skip
def test_patch_similarity_pays_for_changed_text_alone(
    predicted: str, gold: str, reward: float
) -> None:
    assert patch_similarity_reward(predicted, gold) == pytest.approx(reward)


@pytest.mark.parametrize(
    "answer",
    [
        "2|     return x - 1",  # search and replace are the same
        "2|     return x\n2-",  # contradicts itself
        "9| what is not shown",
        "<<<<<<< SEARCH\n    return x - 1\n=======\n    return x + 1\n>>>>>>> REPLACE",
        "",
    ],
)
def test_an_answer_that_is_no_edit_earns_minus_one(answer: str) -> None:
    """SWE-RL's format errors, in the edit language of this scaffold."""
    source = "def f(x):\n    return x - 1\n"
    listing = Listing([Excerpt(path="a.py", rows=(0, 1))], {"a.py": source})
    with pytest.raises(EditError):
        parse_edit(answer, listing)
    assert make_solver_reward(RewardConfig(solver="similarity"))(False, "", GOLD) == -1.0


def test_long_patches_are_compared_by_lines() -> None:
    def long(marked: str) -> str:
        head = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -0,0 +1,1000 @@\n"
        return head + "".join(f"+{'x' * 20}{i if i else marked}\n" for i in range(1000))

    # 1001 lines with the hunk's head, one of them different
    assert patch_similarity_reward(long("a"), long("b")) == pytest.approx(1000 / 1001)


def test_solver_variants() -> None:
    bug = diff("a.py", "good", "bad")
    fix = diff("a.py", "bad", "good")
    resolved = make_solver_reward(RewardConfig())
    assert (resolved(True, "", bug), resolved(False, fix, bug)) == (1.0, -1.0)
    config = load_config(TrainConfig, "train", ["reward=similarity"]).reward
    similar = make_solver_reward(config)
    assert (similar(False, fix, bug), similar(True, "", bug)) == (1.0, -1.0)
    with pytest.raises(UserError, match="similarity"):
        make_solver_reward(RewardConfig(solver="best"))


def change(*lines: str, start: int = 1, path: str = "a.py") -> str:
    old = sum(line[0] in " -" for line in lines)
    new = sum(line[0] in " +" for line in lines)
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n"
    return head + f"@@ -{start},{old} +{start},{new} @@\n" + "".join(f"{x}\n" for x in lines)


GOLD = change(" def f(x):", "-    return x - 1", "+    return x + 1", start=4)


@pytest.mark.parametrize(
    ("patch", "credit"),
    [
        (GOLD, 1.0),
        ("", 0.0),
        ("no diff", 0.0),
        # the right line, as far from the gold text as the bug
        (change(" def f(x):", "-    return x - 1", "+    return x * 1", start=4), 1 / 3),
        # the right line, further away
        (change(" def f(x):", "-    return x - 1", "+    pass", start=4), 1 / 3),
        # the right line and one more
        (
            change("-def f(x):", "-    return x - 1", "+def f(x):", "+    return x + 1", start=4),
            1 / 6,
        ),
        (change("-def f(x):", "+def f(y):", "     return x - 1", start=4), 0.0),  # another line
        (GOLD.replace("a.py", "b.py"), 0.0),  # another file
    ],
)
def test_partial_credit_by_hand(patch: str, credit: float) -> None:
    assert partial_credit(patch, GOLD) == pytest.approx(credit)
    reward = make_solver_reward(RewardConfig(solver="partial"))
    assert reward(False, patch, reverse_patch(GOLD)) == pytest.approx(-1 + credit)
    assert reward(True, patch, reverse_patch(GOLD)) == 1.0


@pytest.mark.parametrize("solver", ["resolved", "similarity", "partial"])
def test_an_attempt_without_a_patch_can_cost_more_than_a_wrong_one(solver: str) -> None:
    wrong = GOLD.replace("a.py", "b.py")
    strict = make_solver_reward(RewardConfig(solver=solver, no_edit=-1.5))
    paper = make_solver_reward(RewardConfig(solver=solver))
    assert strict(False, "", reverse_patch(GOLD)) == -1.5
    assert paper(False, "", reverse_patch(GOLD)) == -1.0
    assert strict(False, wrong, GOLD) == paper(False, wrong, GOLD) >= -1.0
    assert strict(True, GOLD, GOLD) == paper(True, GOLD, GOLD)


@pytest.mark.parametrize("value", [-0.5, 1.0, -11.0, float("nan")])
def test_no_edit_is_never_better_than_a_wrong_patch(value: float) -> None:
    with pytest.raises(UserError, match=r"reward\.no_edit"):
        RewardConfig(no_edit=value)


def test_partial_credit_grows_with_the_way_to_the_gold_text() -> None:
    def fix(text: str) -> str:
        return change(" def f(x):", "-    return None", f"+    {text}", start=4)

    gold = fix("return x.first(1)")
    texts = ("return 0", "return x", "return x.first", "return x.first(0)", "return x.first(1)")
    credits = [partial_credit(fix(text), gold) for text in texts]
    assert credits == sorted(credits) and credits[0] < credits[1] and credits[-1] == 1.0
    start, came = 2 * 7 / 28, 2 * 16 / 34  # "return " of 11 + 17; all but one of 17 + 17
    assert credits[3] == pytest.approx((1 + 2 * (came - start) / (1 - start)) / 3)


def test_partial_credit_of_added_lines_counts_the_line_before() -> None:
    gold = change(" def f(x):", "+    x += 1", "     return x", start=4)
    same_place = change(" def f(x):", "+    x -= 1", "     return x", start=4)
    other_place = change(" def f(x):", "     return x", "+    x += 1", start=4)
    assert partial_credit(gold, gold) == 1.0
    assert partial_credit(same_place, gold) == pytest.approx((1 + 2 * 5 / 6) / 3)
    assert partial_credit(other_place, gold) == 0.0
