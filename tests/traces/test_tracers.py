"""Both tracers on a small file, against events that were worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import greenlet
import pytest

from .inside import as_inside, interpreters

SOURCE = """\
def double(n):
    m = n * 2
    return m


def up_to(n):
    for i in range(n):
        yield i


def failing(n):
    try:
        return 1 // n
    except ZeroDivisionError:
        raise ValueError("no", n)


def caught():
    try:
        failing(0)
    except ValueError:
        pass
    return double(1)


def endless():
    while True:
        pass


def forgetting():
    a = 1
    del a
    return None


def counted(n):
    found = []
    for i in Countdown(n):
        found.append(i)
    return found


class Countdown:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if self.n == 0:
            raise StopIteration
        self.n -= 1
        return self.n


class Later:
    def __await__(self):
        yield


async def later(n):
    await Later()
    return n


async def awaited(n):
    m = await later(n)
    return m


async def each(n):
    yield n


def deepest(n):
    try:
        return deepest(n + 1)
    except RecursionError:
        return n


def in_turns(other):
    a = other()
    b = other()
    return a + b


exec(compile("def made():\\n    return 1", __file__, "exec"))
"""
DRIVER = """\
import json, sys
import small
from selfplay_events import Log
from selfplay_tracers import make_tracer

tracer = make_tracer(sys.argv[1])
log = Log({small.__file__: "small.py"}, int(sys.argv[2]), 1_000_000, 20.0)
tracer.start(log)
exec(sys.argv[3])
tracer.stop()
events = [[[e[0], log.places[e[1]][1], *e[2:]] for e in sample] for sample in log.samples]
print(json.dumps([events, log.why, tracer.disturbed, log.questions]))
"""
TAIL = """\
import json, sys
import small
from selfplay_tail import Tail
from selfplay_tracers import make_tracer

tracer = make_tracer(sys.argv[1])
log = Tail({small.__file__: "small.py"}, int(sys.argv[2]), 1000, 20.0)
tracer.start(log)
try:
    exec(sys.argv[3])
except Exception:
    pass
tracer.stop()
told = log.told()
rows = [[told["places"][row[1]][1], *row[2:]] for row in told["tail"]]
print(json.dumps([rows, log.why, tracer.disturbed, type(tracer).__name__]))
"""
TRACERS = interpreters()


@pytest.fixture(params=sorted(TRACERS))
def trace(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Records a statement: (samples, why it ended, whether it was disturbed, questions)."""
    return recording(request.param, tmp_path)


def recording(tracer: str, tmp_path: Path) -> Any:
    """What the fixture is, for one tracer."""
    as_inside(tmp_path)
    (tmp_path / "drive.py").write_text(DRIVER)
    (tmp_path / "tail.py").write_text(TAIL)

    def run(
        statement: str, bound: int = 1000, program: str = "drive.py", small: str = SOURCE
    ) -> Any:
        (tmp_path / "small.py").write_text(small)
        words = [TRACERS[tracer], program, tracer, str(bound), statement]
        done = subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": ""}
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_call_is_its_lines_and_its_value(trace: Any) -> None:
    samples, why, disturbed, questions = trace("small.double(3)")
    assert samples == [[
        ["call", "double", 1, {"n": "3"}, 0],
        ["line", "double", 2, {}, 0],
        ["line", "double", 3, {"m": "6"}, 0],
        ["return", "double", 3, "6", 0],
    ]]  # fmt: skip
    assert (why, disturbed) == ("", False)
    asked = {"path": "small.py", "module": "small", "function": "double"}
    assert questions == [{**asked, "input": "3", "output": "6"}]


def test_a_generator_yields_and_goes_on(trace: Any) -> None:
    samples, *_ = trace("list(small.up_to(1))")
    assert samples == [
        [
            ["call", "up_to", 6, {"n": "1"}, 0],
            ["line", "up_to", 7, {}, 0],
            ["line", "up_to", 8, {"i": "0"}, 0],
            ["yield", "up_to", 8, "0", 0],
        ],
        [
            ["resume", "up_to", 8, {}, 0],
            ["line", "up_to", 7, {}, 0],
            ["return", "up_to", 7, "None", 0],
        ],
    ]


def test_an_exception_is_told_in_each_frame_that_it_comes_to(trace: Any) -> None:
    samples, _, _, questions = trace("small.caught()")
    (events,) = samples
    told = [(kind, function, depth) for kind, function, _, _, depth in events]
    assert told == [
        ("call", "caught", 0), ("line", "caught", 0), ("line", "caught", 0),
        ("call", "failing", 1), ("line", "failing", 1), ("line", "failing", 1),
        ("exception", "failing", 1), ("line", "failing", 1), ("line", "failing", 1),
        ("exception", "failing", 1), ("exception", "caught", 0),
        ("line", "caught", 0), ("line", "caught", 0), ("line", "caught", 0),
        ("call", "double", 1), ("line", "double", 1), ("line", "double", 1),
        ("return", "double", 1), ("return", "caught", 0),
    ]  # fmt: skip
    first, *others = [e[3] for e in events if e[0] == "exception"]
    assert first.startswith("ZeroDivisionError('") and others == ["ValueError('no', 0)"] * 2
    assert [(q["function"], q["input"], q["output"]) for q in questions] == [
        ("double", "1", "2"), ("caught", "", "2"),
    ]  # fmt: skip


def test_a_generator_that_is_closed_yields_nothing_more(trace: Any) -> None:
    samples, *_ = trace("g = small.up_to(9); next(g); g.close()")
    assert [e[0] for e in samples[0]] == ["call", "line", "line", "yield"]
    assert [e[0] for sample in samples[1:] for e in sample if e[0] != "exception"] in (
        [],
        ["resume"],
    )


STEP = "\ndef step(c):\n    try:\n        c.send(None)\n    except StopIteration:\n        pass\n"


def test_a_loop_or_an_await_that_ends_is_no_exception(trace: Any) -> None:
    samples, *_ = trace("small.counted(0)")
    raised = [e[1] for sample in samples for e in sample if e[0] == "exception"]
    assert raised == ["Countdown.__next__"]  # a statement of its own, unlike the end of the loop
    samples, *_ = trace(STEP + "c = small.awaited(3)\nstep(c)\nstep(c)")
    first, second = ([e[:2] for e in sample] for sample in samples)
    assert first[-1] == ["yield", "awaited"]
    assert ["exception", "awaited"] not in second and ["exception", "later"] not in second
    assert second[-2:] == [["line", "awaited"], ["return", "awaited"]]


def test_an_asynchronous_generator_yields_its_value(trace: Any) -> None:
    samples, *_ = trace(STEP + "step(small.each(7).__anext__())")
    kind, function, _, value, _ = samples[0][-1]
    assert (kind, function, value) == ("yield", "each", "7")


def test_settrace_of_newer_pythons_tells_yields(tmp_path: Path) -> None:
    """From 3.13 on it stands behind the instruction."""
    if "monitoring" not in TRACERS:
        pytest.skip("no Python from 3.12 on")
    as_inside(tmp_path)
    (tmp_path / "small.py").write_text(SOURCE)
    (tmp_path / "drive.py").write_text(DRIVER)
    words = ["drive.py", "settrace", "1000", "list(small.up_to(1))"]
    done = subprocess.run(
        [TRACERS["monitoring"], *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    samples = json.loads(done.stdout)[0]
    assert [[e[0] for e in sample] for sample in samples] == [
        ["call", "line", "line", "yield"],
        ["resume", "line", "return"],
    ]
    assert samples[1][0][3] == {}


def test_equal_code_of_two_files_is_told_apart(trace: Any, tmp_path: Path) -> None:
    (tmp_path / "small_copy.py").write_text(SOURCE)
    both = "import small_copy; log.files[small_copy.__file__] = 'small_copy.py'"
    (tmp_path / "drive.py").write_text(DRIVER.replace("[1], *e[2:]", ", *e[2:]"))
    samples, *_ = trace(f"{both}; small.double(1); small_copy.double(1)")
    assert [sample[0][1][0] for sample in samples] == ["small.py", "small_copy.py"]


def test_code_that_does_not_stand_in_the_file_is_not_recorded(trace: Any) -> None:
    """It was compiled under the file's name, and its lines are others there."""
    samples, why, *_ = trace("small.made(); small.double(1)")
    assert [sample[0][1] for sample in samples] == ["double"] and why == ""


def test_the_recursion_limit_ends_a_recording(trace: Any) -> None:
    """The tracer's own calls bring it nearer: a value that depends on it is another one."""
    samples, why, disturbed, questions = trace("small.deepest(0)", 50_000)
    assert not samples and not questions and why == "recursion" and not disturbed


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # One waits while the other goes on, or while something else is called.
        ("small.in_turns(other)", "small.in_turns(lambda: main.switch(1))"),
        ("other(); small.double(1); other()", "small.in_turns(lambda: main.switch(1))"),
    ],
)
@pytest.mark.parametrize("tracer", [t for t in TRACERS if TRACERS[t] == sys.executable])
def test_greenlets_that_go_on_in_turns_end_a_recording(
    tmp_path: Path, tracer: str, first: str, second: str
) -> None:
    """Who called whom, and in which order, is not known then; the second was recorded as one
    call with strangers inside it."""
    lines = [
        f"sys.path.append({str(Path(greenlet.__file__).parents[1])!r}); import greenlet",
        "main = greenlet.getcurrent()",
        f"g = greenlet.greenlet(lambda: {second})",
        "other = lambda: g.switch() or 0",
        first,
    ]
    samples, why, *_ = recording(tracer, tmp_path)("\n".join(lines))
    assert (samples, why) == ([], "stacks")


def test_a_trace_function_that_was_away_for_a_while_is_noticed(
    trace: Any, request: pytest.FixtureRequest
) -> None:
    """What was called meanwhile is missing; `doctest` puts back what is there, which is no gap."""
    alone = request.node.callspec.params["trace"] == "settrace"
    back = "old = sys.gettrace(); {}; small.double(2); sys.settrace(old); small.double(3)"
    for between, noticed in (("sys.settrace(None)", alone), ("pass", False)):
        samples, why, disturbed, _ = trace(back.format(between))
        assert disturbed == noticed and why == ""
    assert len(samples) == 2
    ended = "[small.double(n) for n in range(9)]; sys.settrace(None)"
    assert trace(ended, 9)[1:3] == ["events", False], "it was over by then"


def test_nothing_that_a_test_put_in_place_is_called(trace: Any) -> None:
    """Clocks and functions that read files, with the counts that a test makes of its own."""
    lines = [
        "import pathlib, time, warnings",
        "called = []",
        "def fake(*_): called.append(1); return 0.0",
        "time.perf_counter = pathlib.Path.read_bytes = pathlib.Path.open = fake",
        "with warnings.catch_warnings(record=True) as told:",
        "    warnings.simplefilter('always')",
        "    [small.double(n) for n in range(40)]",
        "assert not called and not told, (called, told)",
    ]
    odd = 'ODD = "\\d"\n'
    samples, why, *_ = trace("\n".join(lines), small=SOURCE + odd)
    assert len(samples) == 40 and why == ""


def test_a_trace_function_is_not_compared(trace: Any) -> None:
    lines = [
        "class Own:",
        "    def __call__(self, *_): return None",
        "    def __eq__(self, other): called.append(1)",
        "called = []",
        "import atexit, threading; own = Own(); threading.settrace(own); sys.settrace(own)",
        "atexit.register(lambda: called and __import__('os')._exit(3))",
    ]
    trace("\n".join(lines))


def test_what_finalizers_call_is_not_hidden_in_the_recorder(trace: Any) -> None:
    """Its own allocations had the collector run there, where nothing is recorded."""
    lines = [
        "import gc; gc.collect(); calls = []",
        "class Node:",
        "    def __init__(self): self.own = self; small.double(1)",
        "    def __del__(self): calls.append(small.double(2))",
        "for _ in range(3000): Node()",
        "gc.collect(); assert len(calls) == 3000",
        "import atexit; atexit.register(lambda: gc.isenabled() or __import__('os')._exit(3))",
    ]
    samples, why, *_ = trace("\n".join(lines), 100_000)
    assert (len(samples), why) == (6000, "")
    assert trace("\n".join([lines[0], "small.double(2)", lines[6]]), 1)[1] == "events"


def test_a_local_that_is_gone_is_told(trace: Any) -> None:
    ((*_, last, returned),), *_ = trace("small.forgetting()")
    assert last[3] == {"a": None} and returned[3] == "None"


def test_the_recording_ends_at_its_bound_and_keeps_what_is_complete(trace: Any) -> None:
    samples, why, *_ = trace("small.double(1); small.double(2); small.double(3)", 9)
    assert why == "events" and len(samples) == 2


def test_a_test_with_a_trace_function_of_its_own_is_noticed(
    trace: Any, request: pytest.FixtureRequest
) -> None:
    _, _, disturbed, _ = trace("sys.settrace(lambda *_: None); small.double(1)")
    tracer = request.node.callspec.params["trace"]
    assert disturbed == (tracer == "settrace")


def test_the_last_lines_and_what_they_did(trace: Any) -> None:
    rows, why, disturbed, _ = trace("small.double(1); small.double(3)", 3, "tail.py")
    assert rows == [
        ["double", 1, {"n": "3"}, ""],
        ["double", 2, {"m": "6"}, ""],
        ["double", 3, {}, "return 6"],
    ]
    assert (why, disturbed) == ("", False)


def test_a_call_stands_behind_what_it_called(trace: Any) -> None:
    rows, *_ = trace("small.caught()", 9, "tail.py")
    assert [(name, line, end.partition("(")[0]) for name, line, _, end in rows] == [
        ("caught", 18, ""), ("caught", 19, ""),
        ("failing", 11, ""), ("failing", 12, ""), ("failing", 13, "raise ZeroDivisionError"),
        ("failing", 14, ""), ("failing", 15, "raise ValueError"),
        ("caught", 20, "raise ValueError"),
        ("caught", 21, ""), ("caught", 22, ""),
        ("double", 1, ""), ("double", 2, ""), ("double", 3, "return 2"),
        ("caught", 23, "return 2"),
    ]  # fmt: skip


def test_a_generator_keeps_its_rows(trace: Any) -> None:
    rows, *_ = trace("list(small.up_to(2))", 20, "tail.py")
    assert [(line, told, end) for _, line, told, end in rows] == [
        (6, {"n": "2"}, ""),
        (7, {"i": "0"}, ""), (8, {}, "yield 0"),
        (7, {"i": "1"}, ""), (8, {}, "yield 1"),
        (7, {}, "return None"),
    ]  # fmt: skip


def test_an_endless_test_has_no_last_line(trace: Any) -> None:
    clock = "import signal; signal.signal(14, lambda *_: exec('raise OSError')); signal.alarm(2)"
    rows, why, *_ = trace(f"{clock}; small.endless()", 5, "tail.py")
    assert (rows, why) == ([], "events")


def test_a_recursion_without_end_breaks_nothing(trace: Any) -> None:
    """Python itself takes a trace function away that fails so deep: then nothing is told."""
    deep = "small.f = lambda n: small.double(n) and small.f(n + 1); small.f(0)"
    rows, why, disturbed, _ = trace(deep, 2, "tail.py")
    assert why in ("", "recorder") and (disturbed or why or rows[-1][0] == "double")


def test_another_trace_function_stays(trace: Any, request: pytest.FixtureRequest) -> None:
    """As a coverage tool's, which must go on measuring; `sys.monitoring` has room for several."""
    before = "t = lambda *_: None; tracer.stop(); sys.settrace(t); tracer.start(log)"
    said = f"{before}; small.double(1); assert sys.gettrace() is t; tracer.stop()"
    samples, _, disturbed, _ = trace(f"{said}; assert sys.gettrace() is t; tracer.start(log)")
    alone = request.node.callspec.params["trace"] == "settrace"
    assert disturbed == alone and len(samples) == (not alone)


def test_where_other_tools_have_all_ids_settrace_does_it(trace: Any, tmp_path: Path) -> None:
    """Coverage tools, debuggers and profilers may hold every one."""
    taken = "\n".join([
        "import sys",
        "for n in range(6 if sys.version_info >= (3, 12) else 0):",
        "    sys.monitoring.use_tool_id(n, 'another')",
    ])  # fmt: skip
    drive = (tmp_path / "tail.py").read_text()
    (tmp_path / "taken.py").write_text(taken + "\n" + drive)
    rows, _, disturbed, kind = trace("small.double(3)", 1, "taken.py")
    assert (rows, disturbed, kind) == ([["double", 3, {}, "return 6"]], False, "SetTrace")


def test_an_id_is_given_back(trace: Any) -> None:
    """To a tool of the tests that begins later; before Python 3.12 there is none."""
    given = "m = getattr(sys, 'monitoring', None); tracer.stop(); m and m.use_tool_id(4, 'another')"
    again = "m and m.free_tool_id(4); tracer.start(log); small.double(3)"
    rows, _, disturbed, _ = trace(f"{given}; {again}", 1, "tail.py")
    assert rows and not disturbed


def test_who_has_the_id_next_misses_nothing(trace: Any) -> None:
    """What was switched off as none of ours is somebody else's to see."""
    monitored = "seen = []; m.use_tool_id(4, 'another'); m.set_events(4, m.events.LINE)"
    callback = "m.register_callback(4, m.events.LINE, lambda _, line: seen.append(line))"
    after = f"{monitored}; {callback}; small.double(2); m.set_events(4, 0); assert 2 in seen"
    given = "m = getattr(sys, 'monitoring', None); log.files.clear(); small.double(1)"
    trace(f"{given}; tracer.stop(); m and exec({after!r})")
