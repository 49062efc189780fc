"""What an injector may not put into script, parser, tests and bug."""

from __future__ import annotations

from ..case import ArtifactCase, Case, Edit, Family, swap
from ..projects import LEDGER, TIMETABLE
from .texts import OWN_PARSER, OWN_SCRIPT

ASSERTION = "    assert round_to(50, 100) == 100"
SOURCE = "    sign = -1 if cents < 0 else 1\n    units, rest"


def script(name: str, reason: str, line: str) -> Case:
    """An own script with one more line."""
    return ArtifactCase(
        name=f"script {name}",
        repo="ledger",
        want=f"forbidden_content/script_{reason}",
        script=f"{line}\n{OWN_SCRIPT}",
        parser=OWN_PARSER,
    )


def parser(name: str, reason: str, line: str) -> Case:
    """An own parser with one more line."""
    return ArtifactCase(
        name=f"parser {name}",
        repo="ledger",
        want=f"forbidden_content/parser_{reason}",
        script=OWN_SCRIPT,
        parser=f"{line}\n{OWN_PARSER}",
    )


def test(name: str, reason: str, *lines: str) -> Case:
    """A weakened test whose failing assertion gives way to other statements."""
    code = "\n".join(f"    {line}" for line in lines)
    return ArtifactCase(
        name=f"weakened test {name}",
        repo="ledger",
        want=f"forbidden_content/tests_{reason}",
        weakening={"tests/test_money.py": swap(ASSERTION, code)},
    )


def bug(name: str, reason: str, *lines: str) -> Case:
    """A bug with further statements."""
    code = "".join(f"    {line}\n" for line in lines)
    return ArtifactCase(
        name=f"bug {name}",
        repo="ledger",
        want=f"forbidden_content/{reason}",
        bug={"ledger/money.py": added(code)},
    )


def added(code: str) -> Edit:
    """The sound bug, and statements before it."""

    def edit(text: str) -> str:
        assert callable(LEDGER.bug)
        return LEDGER.bug(text).replace(SOURCE, code + SOURCE)

    return edit


def perl(name: str, reason: str, old: str, new: str) -> Case:
    """A bug in the Perl repository."""
    return ArtifactCase(
        name=f"bug {name}",
        repo="timetable",
        want=f"forbidden_content/{reason}",
        bug={TIMETABLE.source: swap(old, new)},
    )


FAMILY = Family(
    title="Forbidden content",
    source="validation",
    cases=(
        script("asks git", "git", "git stash"),
        script("asks the network", "network", "curl -s http://localhost/ || true"),
        script("throws dice", "randomness", "[ $RANDOM -gt 9 ] || exit 0"),
        script("looks at the clock", "clock", "[ $(date +%H) -gt 12 ] || exit 0"),
        script("hashes the code", "source_reading", "sha256sum ledger/money.py"),
        script("searches the code", "source_reading", "grep -q 'rest.*>=' ledger/money.py"),
        script("prints results itself", "result_writing", "echo 'PASSED a'"),
        parser("throws dice", "import", "import random"),
        parser("starts programs", "import", "import subprocess"),
        parser("reads the code", "call", "source = open('ledger/money.py').read()"),
        parser("evaluates text", "call", "eval('1')"),
        parser("digs in the interpreter", "call", "().__class__.__base__.__subclasses__()"),
        parser("is not Python", "syntax", "def"),
        test("throws dice", "randomness", "import random", "assert random.random() < 2"),
        test("reads /dev/urandom", "randomness", "assert open('/dev/urandom', 'rb').read(1)"),
        test("looks at the clock", "clock", "import time", "assert time.time()"),
        test("looks at the clock under another name", "clock",
             "from datetime import datetime as d", "assert d.now()"),
        test("asks the network", "network", "import socket", "socket.socket()"),
        test("starts a program", "process", "import subprocess", "subprocess.run(['true'])"),
        test("asks git", "git", "import os", "assert os.system('git diff --quiet') == 0"),
        test("reads the code", "source_reading", "assert 'step' in open('ledger/money.py').read()"),
        test("reads the code of a function", "source_reading",
             "import inspect", "assert inspect.getsource(round_to)"),
        test("finds the code by its module", "source_reading",
             "import ledger.money", "assert 'step' in open(ledger.money.__file__).read()"),
        test("hashes byte code", "source_reading", "assert hash(round_to.__code__.co_code)"),
        test("hides what it does", "dynamic", "exec('1')"),
        test("is commented out", "commented_out", "# assert round_to(50, 100) == 100", "pass"),
        bug("hides what it does", "bug_dynamic", "exec('1')"),
        bug("is obfuscated", "bug_dynamic", "import base64", "base64.b64decode('')"),
        bug("knows when it is tested", "bug_runner",
            "import sys", "step += 'pytest' in sys.modules"),
        bug("asks the machine's variables", "bug_environment",
            "import os", "step += len(os.environ) % 2"),
        bug("counts threads", "bug_threads",
            "import threading", "step += threading.get_ident() // 4096 % 2"),
        bug("looks at who calls it", "bug_runner", "import sys", "sys._getframe(1)"),
        bug("throws dice", "bug_randomness", "import random", "step += random.random() > 2"),
        bug("asks the network", "bug_network", "import socket", "socket.gethostname()"),
        bug("starts a program", "bug_process", "import os", "os.system('true')"),
        bug("gives a hint", "bug_hint", "# bug: ties go the wrong way"),
        ArtifactCase(
            name="bug leaves the original commented out",
            repo="ledger",
            want="forbidden_content/original_commented_out",
            bug={"ledger/money.py": swap(
                "    if rest * 2 >= step:", "    # if rest * 2 >= step:\n    if rest * 2 > step:")},
        ),
        perl("throws dice in Perl", "bug_randomness", "return $span->{end} -",
             "return rand() + $span->{end} +"),
        perl("leaves the original commented out in Perl", "original_commented_out",
             "    return $span->{end} - $span->{start};",
             "    # return $span->{end} - $span->{start};\n    return $span->{end};"),
    ),
)  # fmt: skip
