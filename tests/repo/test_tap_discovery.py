"""TAP suites that are not all green, found where pytest finds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from selfplay.errors import RepoError
from selfplay.repo.discovery.discover import discover
from selfplay.repo.discovery.profile import RepoProfile
from selfplay.sandbox.base import Environment, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable

MIXED = """use Test::More;
use Calc qw(add late);
is(add(1, 2), 3, 'good');
is(add(1, 2), 4, 'red');
is($ENV{PERL_HASH_SEED}, 0, 'flaky');
SKIP: { skip 'why', 1; ok(1, 'skipped') }
TODO: { local $TODO = 'later'; ok(0, 'expected') }
is(late(1), 2, 'same') for 1 .. 2;
done_testing;
"""
FILES = {
    "lib/Calc.pm": "package Calc;\nuse parent 'Exporter';\nour @EXPORT_OK = qw(add late);\n"
    "sub add {\n    return $_[0] + $_[1];\n}\n\nsub late {\n    return add($_[0], 1);\n}\n1;\n",
    "t/mixed.t": MIXED,
    "t/sub/shell.t": "#!/bin/sh\necho 'ok 1 - from a shell'\necho 1..1\n",
    "t/dies.t": "use Test::More; ok(1, 'before'); die 'x';\n",
    "t/none.t": "use Test::More skip_all => 'no';\n",
    ".proverc": "--exec 'false'\n",
}


@pytest.fixture
def discovered(place: Path, sandbox: Sandbox, tmp_path: Path) -> Iterator[RepoProfile]:
    yield profile(place / "tap", sandbox, tmp_path, FILES)


def profile(
    folder: Path, sandbox: Sandbox, tmp_path: Path, files: Mapping[str, str]
) -> RepoProfile:
    for name, text in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text(text)
    make_readable(folder)
    environment = Environment(
        tree=folder / "tree",
        mounts=host_mounts(),
        path="/usr/local/bin:/usr/bin:/bin",
        digest=str(folder),
    )
    return discover(environment, sandbox, tmp_path / "pycache")


def test_stable_tests_are_kept_and_the_rest_is_named(discovered: RepoProfile) -> None:
    assert discovered.runner == "tap"
    assert set(discovered.tests) == {
        "t/mixed.t::good", "t/mixed.t::same", "t/mixed.t::same#2", "t/sub/shell.t::from a shell",
    }  # fmt: skip
    assert set(discovered.test_files) == {"t/mixed.t", "t/sub/shell.t"}
    reasons = dict(discovered.excluded)
    assert reasons["t/mixed.t::red"].startswith("failing")
    assert reasons["t/mixed.t::flaky"].startswith("flaky: passed, then failed")
    assert reasons["t/dies.t::before"].startswith("failing") and "t/dies.t" in reasons
    assert "t/none.t" in reasons


def test_what_each_reaches(discovered: RepoProfile) -> None:
    assert discovered.tests_reaching("lib/Calc.pm", "add") == tuple(discovered.tests)
    assert "t/mixed.t::good" not in discovered.tests_reaching("lib/Calc.pm", "late")
    assert RepoProfile.from_json(discovered.to_json()) == discovered


def test_nothing_that_passes(place: Path, sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(RepoError, match="no passing TAP test"):
        profile(place / "tap-red", sandbox, tmp_path, {"t/a.t": "die 'x';\n"})
