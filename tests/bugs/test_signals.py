"""Every entry of the tables of signals raises its alarm, and nothing that was there before does."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.bugs.code_signals import python_signals as tables
from selfplay.bugs.code_signals.perl_signals import perl_signals
from selfplay.bugs.code_signals.python_chance import python_chance
from selfplay.bugs.code_signals.python_signals import python_signals
from selfplay.bugs.code_signals.signals import new_signals

KINDS = sorted(
    {
        *tables.MODULES.values(), *tables.ATTRIBUTES.values(), *tables.NAMES.values(),
        *tables.CALLS.values(), "equality", "randomness", "git", "source_reading",
    }
)  # fmt: skip
HARMLESS = [
    "x = 1\n",
    "def f(a):\n    return a + 1\n",
    '"""import random, os.system; .git/"""\n',
    "# import socket\n",
    "from . import random\n",
    "from .time import sleep\n",
    "import mathematics.random\n",
    "self.random = random_field\n",
    "a == b\n",
]
ALARMS = {
    "import random\n": "randomness",
    "from random import choice\n": "randomness",
    "import os as o\no.urandom(4)\n": "randomness",
    "open('/dev/urandom')\n": "randomness",
    "import datetime\ndatetime.datetime.now()\n": "clock",
    "import time as t\n": "clock",
    "import socket\n": "network",
    "import urllib.request\n": "network",
    "import os\nos.system('ls')\n": "process",
    "import subprocess\n": "process",
    "cmd = 'git log'\n": "git",
    "p = 'a/.git/HEAD'\n": "git",
    "import inspect\ninspect.getsource(f)\n": "source_reading",
    "__file__\n": "source_reading",
    "open('shop.py')\n": "source_reading",
    "exec('1')\n": "dynamic",
    "import pickle\n": "dynamic",
    "import os\nos._exit(0)\n": "runner",
    "from os import _exit\n": "runner",
    "import os as system\nsystem._exit(0)\n": "runner",
    "getattr(os, '_exit')(0)\n": "runner",
    "f.__globals__\n": "runner",
    "x = 'PYTEST_CURRENT_TEST'\n": "runner",
    "class A:\n    def __eq__(self, other):\n        return True\n": "equality",
    "class A:\n    __eq__ = always\n": "equality",
    "setattr(A, '__eq__', always)\n": "equality",
    "type('A', (), {'__eq__': always})\n": "equality",
}


def kinds_of(source: str) -> set[str]:
    return {kind for kind, _ in python_signals(source)}


@pytest.mark.parametrize("name", tables.MODULES)
@pytest.mark.parametrize("form", ["import {}", "import {}.inner as x", "from {} import anything"])
def test_every_module_of_the_table(name: str, form: str) -> None:
    assert tables.MODULES[name] in kinds_of(form.format(name) + "\n")


@pytest.mark.parametrize("name", tables.ATTRIBUTES)
def test_every_attribute_of_the_table_in_every_disguise(name: str) -> None:
    module, _, member = name.partition(".")
    plain = f"{name}()\n"
    renamed = f"import {module} as m\nm.{member}()\n"
    taken = f"from {module} import {member.rpartition('.')[2]}\n"
    for source in (plain, renamed, taken) if "." not in member else (plain, renamed):
        assert tables.ATTRIBUTES[name] in kinds_of(source), source


@pytest.mark.parametrize("name", tables.NAMES)
def test_every_name_whatever_it_belongs_to(name: str) -> None:
    for source in (f"{name}\n", f"a.b.{name}\n", f"getattr(a, {name!r})\n", f"f().{name}\n"):
        assert tables.NAMES[name] in kinds_of(source), source


@pytest.mark.parametrize(("source", "kind"), ALARMS.items())
def test_an_alarm_counts_once_it_is_new(source: str, kind: str) -> None:
    assert kind in kinds_of(source)
    assert new_signals("a.py", source, [""], KINDS)
    assert new_signals("a.pyi", source, [""], [kind]), "a stub is Python, too"
    assert new_signals("a.py", source, [source], KINDS) == []
    assert new_signals("a.py", source, ["", source], KINDS) == [], "in either state before"
    assert new_signals("a.py", source, [""], []) == []
    assert new_signals("a.txt", source, [""], KINDS) == []
    twice = source + source
    found = {entry.partition(": ")[0] for entry in new_signals("a.py", twice, [source], KINDS)}
    assert kind in found, "one more than before is new"


@pytest.mark.parametrize("source", HARMLESS)
def test_what_raises_none(source: str) -> None:
    assert kinds_of(source) == set()


@given(st.lists(st.sampled_from(sorted(ALARMS)), max_size=4), st.permutations(HARMLESS))
def test_more_code_never_hides_a_signal(alarms: list[str], around: list[str]) -> None:
    alone = sum((python_signals(alarm) for alarm in alarms), python_signals(""))
    source = "".join(itertools.chain(around[:4], alarms, around[4:]))
    assert set(alone) <= set(python_signals(source))
    assert new_signals("a.py", "".join(around), [source], KINDS) == [], "less is never new"


@given(st.permutations(sorted(ALARMS)[:8]))
def test_moved_code_is_not_new(order: list[str]) -> None:
    before = "".join(sorted(ALARMS)[:8])
    assert new_signals("a.py", "".join(order), [before], KINDS) == []


PERL_ALARMS = {
    "exit 0;": "runner",
    "Test::More::ok(1);": "runner",
    "*{'main::ok'} = sub { 1 };": "runner",
    "$SIG{__DIE__} = sub {};": "runner",
    "sub DESTROY { }": "runner",
    "print 'ok 1 - adds';": "runner",
    "eval $code;": "dynamic",
    "my $x = rand 3;": "randomness",
    "my $t = time();": "clock",
    "system 'ls';": "process",
    "my $l = `ls`;": "process",
    "use IO::Socket;": "network",
    "use overload '==' => sub { 1 };": "equality",
    "open my $fh, '<', __FILE__;": "source_reading",
    "my $c = 'git log';": "git",
}


@pytest.mark.parametrize(("source", "kind"), PERL_ALARMS.items())
def test_perl_by_words_of_its_code(source: str, kind: str) -> None:
    assert kind in {found for found, _ in perl_signals(source)}
    assert new_signals("lib/A.pm", source, [""], [kind])
    assert new_signals("lib/A.pm", source, [source], [kind]) == []
    hidden = source.replace("`", "'")
    assert perl_signals(f"# {hidden}\n") == perl_signals("")
    assert perl_signals(f"=pod\n\n{hidden}\n\n=cut\n") == perl_signals("")


def test_perl_that_cannot_be_read_is_searched_whole() -> None:
    """An open quote must not hide what stands behind it."""
    assert ("runner", "exit") in perl_signals("my $x = 'open;\nexit 0;\n")
    assert ("runner", "exit") in perl_signals("my $x = 'open;\n# exit\n")


def test_a_text_is_read_once_and_what_was_found_belongs_to_the_asker() -> None:
    """A validation asks of the same few files many times; parsing them was most of its seconds."""
    text = "import random\n\n\ndef draw():\n    return random.random(), exec('1')\n"
    first = python_signals(text)
    before = tables._signals.cache_info()
    first["runner", "made up"] += 1
    assert ("runner", "made up") not in python_signals(text)
    found = python_chance(text)
    found.clear()
    assert [source.kind for source in python_chance(text)] == ["randomness"]
    after = tables._signals.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 0)
