"""Bugs by chance: code whose verdict is another one in the next run is never accepted as a bug."""

from __future__ import annotations

import pytest

from selfplay.bugs.code_signals.chance import added_source, chance_sources, touches_chance
from selfplay.bugs.patches.layers import apply_patch, normal_layer
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.sandbox.base import Environment, Sandbox

from .shop import FILES, SUM_TESTS, MakeArtifact, as_layer, replaced

LOOP = "        result += price"
BUGS = {
    "clock": ("from datetime import datetime", "datetime.now().microsecond % 2"),
    "clock by another name": ("from time import perf_counter_ns as tick", "tick() % 2"),
    "clock of a parameter": ("", "prices.clock.now().microsecond % 2"),
    "clock by a text": ("import datetime", "getattr(datetime.datetime, 'utcnow')().second % 2"),
    "module handed on": ("import time", "vars(time)['ti' + 'me']() * 1e6 % 2 < 1"),
    "random": ("import random", "random.random() < 0.5"),
    "random of the system": ("import os", "os.urandom(1)[0] % 2"),
    "random by an object": ("", "prices.rng.getrandbits(1)"),
    "secrets": ("from secrets import randbelow", "randbelow(2)"),
    "uuid": ("import uuid", "uuid.uuid4().int % 2"),
    "device": ("", "open('/dev/urandom', 'rb').read(1)[0] % 2"),
    "address": ("", "id(object()) // 16 % 2"),
    "hash of a text": ("", "hash('price') % 2"),
    "order of a set": ("", "list({'a', 'b', 'c', 'd'})[0] < 'c'"),
    "order of a named set": ("", "next(iter(set('abcd') | {'e'})) < 'c'"),
    "order of a folder": ("import os", "os.listdir('/usr/bin')[0] < 'm'"),
    "process": ("import os", "os.getpid() % 2"),
    "environment": ("import os", "len(os.environ) % 2"),
    "threads": ("import threading", "threading.get_ident() // 4096 % 2"),
    "garbage": ("import gc", "gc.get_count()[0] % 2"),
    "weak references": ("import weakref", "weakref.ref(prices.__class__)() is None"),
    "age of a file": ("import os", "os.stat('/tmp').st_mtime_ns // 1000 % 2"),
}  # fmt: skip
VAGUE = "int(repr(object())[-8], 16) % 2"
"""An address whose name stands nowhere."""


def by_chance(imports: str, condition: str) -> dict[str, str | None]:
    """`total` forgets a price when the condition holds."""
    text = FILES["shop/prices.py"].replace(LOOP, f"        result += 0 if {condition} else price")
    return {"shop/prices.py": text.replace('cents."""\n', f'cents."""\n{imports}\n', 1)}


@pytest.mark.parametrize("what", BUGS)
def test_a_source_of_chance_is_refused_every_time(
    make_artifact: MakeArtifact, environment: Environment, runner: TestRunner, what: str
) -> None:
    """Without a run: what is not drawn cannot be lucky."""
    artifact = make_artifact(by_chance(*BUGS[what]), SUM_TESTS)
    before = runner.num_runs
    for _ in range(20):
        report = validate(artifact, environment, runner)
        assert report.verdict == "invalid" and report.reason.startswith("bug_")
        assert report.checks[2].name == "forbidden_content" and report.checks[2].status == "fail"
    assert runner.num_runs == before


def test_chance_without_a_name_does_not_get_through_ten_runs(
    make_artifact: MakeArtifact, environment: Environment, sandbox: Sandbox
) -> None:
    """An even chance gets through ten runs once in a thousand; here it never does."""
    artifact = make_artifact(by_chance("", VAGUE), SUM_TESTS)
    bug = apply_patch(environment.tree, {}, artifact.bug_patch)
    assert touches_chance(environment.tree, bug) == "shop/prices.py:19: repr"
    reasons: list[str] = []
    while len(reasons) < 6 or ("by_chance" not in reasons and len(reasons) < 60):
        report = validate(artifact, environment, TestRunner(sandbox, environment))
        reasons.append(report.reason)
    assert "" not in reasons and "by_chance" in reasons  # often it is refused even before


def refused(path: str, before: str, after: str) -> str:
    found = added_source([(path, before)], [(path, after)])
    return found.kind if found else ""


CLOCK = """\
import time
from typing import Any


class Cache:
    def __init__(self, timer: Any = time.monotonic) -> None:
        self.timer = timer

    def age(self, made):
        return self.timer() - made

    def size(self):
        return 1 + len(self.items)
"""


def test_what_was_there_may_stay_move_and_be_replaced_by_its_like() -> None:
    for old, new in (
        ("1 + len", "2 + len"),
        ("self.timer() - made", "made - self.timer()"),
        ("time.monotonic", "time.time"),
        ("import time\n", "import time  # the clock\n"),
    ):
        assert refused("a.py", CLOCK, CLOCK.replace(old, new)) == ""
    moved = CLOCK.replace("import time\n", "").replace("import Any\n", "import Any\nimport time\n")
    assert refused("a.py", CLOCK, moved) == ""
    both = [("a.py", CLOCK), ("b.py", "")]
    assert added_source(both, [("a.py", ""), ("b.py", CLOCK)]) is None


def test_a_set_may_be_asked_but_not_walked_through() -> None:
    for code in ("x in set(y)", "len({*()})", "sorted(set(y))", "max({a, b})", "set(y) == {1}"):
        assert chance_sources(f"print({code})\n", "a.py") == [] or code == "len({*()})"
    for code in ("[v for v in set(y)]", "list(a & set(b))", "', '.join({a, b})", "[*{a, b}]"):
        assert [s.kind for s in chance_sources(f"x = {code}\n", "a.py")] == ["order"]
    named = "def f(y):\n    seen = set()\n    return [v for v in seen], seen.pop()\n"
    assert sorted(s.name for s in chance_sources(named, "a.py")) == [
        "iteration over a set",
        "pop() of a set",
    ]
    assert refused("a.py", "for v in sorted(set(y)): f(v)\n", "for v in set(y): f(v)\n") == "order"


def test_sources_in_perl() -> None:
    honest = "my %h = (time => 1); for (sort keys %h) { f($$ref, scalar(keys %h)) } $x->keys;\n"
    assert chance_sources(honest, "A.pm") == []
    for code, kind in (
        ("rand(2)", "randomness"), ("time() % 2", "clock"), ("localtime", "clock"),
        ("$$ % 2", "environment"), ("$ENV{HOME}", "environment"), ("(keys %h)[0]", "order"),
        ("Time::HiRes::time()", "clock"), ("times", "clock"), ("readdir($d)", "order"),
    ):  # fmt: skip
        assert {s.kind for s in chance_sources(f"my $x = {code};\n", "A.pm")} == {kind}, code
    # a file that cannot be read any more is read as plainly as it was before
    pod = "=head1 TIME\n\nIt is time; really.\n\n=cut\n\nsub f { 1 }\n"
    assert refused("A.pm", pod, pod.replace("sub f {", "sub f {{")) == ""
    assert refused("A.pm", "for (sort keys %h) { }\n", "for (keys %h) { }\n") == "order"


def test_a_change_beside_the_clock_touches_no_chance(environment: Environment) -> None:
    tree = environment.tree
    assert (
        touches_chance(
            tree, normal_layer(tree, as_layer(replaced("shop/prices.py", (LOOP, f"{LOOP}1"))))
        )
        == ""
    )


def test_names_are_followed_to_the_clock(environment: Environment) -> None:
    """The timer came in through a default argument, and from another module."""
    tree = environment.tree
    layer = as_layer({"shop/cache.py": CLOCK})
    assert touches_chance(tree, layer).startswith("shop/cache.py")
    (tree / "shop/cache.py").write_text(CLOCK)
    try:
        changed = CLOCK.replace("self.timer() - made", "made - self.timer()")
        assert "timer" in touches_chance(tree, as_layer({"shop/cache.py": changed}))
        other = CLOCK.replace("1 + len", "2 + len")
        assert touches_chance(tree, as_layer({"shop/cache.py": other})) == ""
        using = "from .cache import Cache\n\n\ndef f(x):\n    return Cache().age(x)\n"
        assert "age" not in touches_chance(tree, as_layer({"shop/cache.py": other}))
        assert touches_chance(tree, as_layer({"shop/use.py": using})) == ""
    finally:
        (tree / "shop/cache.py").unlink()
