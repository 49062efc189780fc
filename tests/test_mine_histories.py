"""Histories as they are: data elsewhere, change logs, merges, renames, tests that cannot pass here,
odd names; and `corpus verify` on what comes of them, killed and with a repository that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selfplay.bug_sources.commit_trees import place_environment, place_of, split_name
from selfplay.bugs.patches.layers import read_file
from selfplay.bugs.sealing import sealed_layer
from selfplay.corpus.suite import SuiteTask, read_suite
from selfplay.repo.prepare import prepare
from selfplay.repo.spec import find_repos_dir, load_spec
from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox

Files = dict[str, str | bytes | None]
SECRET = "it subtracted where it should have added"
GCD = "def gcd(a, b):\n    return a if b == 0 else gcd({}, {})\n"
FLATTEN = "def flatten(x):\n    return [z for y in x for z in {}]\n"
CLAMP = (
    "def clamp(x, low, high):\n    return max(low, {}(x, high))\n\n\ndef same(x):\n    return x\n"
)
BUCKET = (
    "def bucket(values, k):\n    counts = [0] * k\n    for v in values:\n        counts[{}] += 1\n"
)
BUCKET += "    return counts\n\n\ndef empty(k):\n    return [0] * k\n"
DOUBLE = "def double(x):\n    return x {} 2\n\n\ndef half(x):\n    return x / 2\n"
TWO = "    assert clamp(9, 0, 3) == 3\n    assert clamp(-9, 0, 3) == 0\n"
LOCK = "".join(f"package {number} {{0}}\n" for number in range(900))
CRLF = "programs/double.py eol=crlf\n"
NOISE: tuple[Files, Files] = (
    {
        "CHANGES": "1.0\n", "uv.lock": LOCK.format("a"), ".gitattributes": f"*.x text\n{CRLF}",
        ".github/workflows/ci.yml": "on: push\n", "docs/conf.py": "a = 1\n",
        "pyproject.toml": '[project]\nname = "programs"\nversion = "1.0"\n', "mkdocs.yml": "a: 1\n",
    },
    {
        "CHANGES": f"1.1\n- {SECRET}\n1.0\n", "changelog.d/2.bugfix": f"{SECRET}\n",
        "uv.lock": LOCK.format("b"), ".gitattributes": f"*.y text\n{CRLF}",
        "docs/conf.py": "a = 2\n",
        ".github/workflows/ci.yml": f"on: [push]  # {SECRET}\n",
        "mkdocs.yml": f"a: 2  # {SECRET}\n", "programs/version.py": f"# {SECRET}\nVERSION = 2\n",
        "pyproject.toml": '[project]\nname = "programs"\nversion = "1.1"\n',
    },
)  # fmt: skip


def cases(name: str, values: list[Any]) -> Files:
    """A test module whose data lies in another folder."""
    text = (
        "import json\nfrom pathlib import Path\n\nimport pytest\n"
        f"from programs.{name} import {name}\n\n"
        f"CASES = json.loads((Path(__file__).parent.parent / 'data/{name}.json').read_text())\n\n\n"
        '@pytest.mark.parametrize(("given", "want"), CASES)\n'
        f"def test_{name}(given, want):\n    assert {name}(*given) == want\n"
    )
    return {f"checks/test_{name}.py": text, f"data/{name}.json": json.dumps(values)}


def unit(module: str, names: str, *bodies: str) -> str:
    tests = [f"\n\ndef test_{i}():\n{body}" for i, body in enumerate(bodies)]
    return f"from programs.{module} import {names}\n" + "".join(tests)


OLD_CLAMP = unit("clamp", "clamp, same", "    assert same(1) == 1\n")
LUCK = "\n\ndef test_of_luck():\n    import random\n    assert random.random() < 2\n"
NETWORK = (
    "\n\ndef test_of_the_network():\n    import socket\n    socket.create_connection(('a.b', 1))\n"
)
OLD_BUCKET = unit("bucket", "bucket, empty", "    assert empty(2) == [0, 0]\n")
NEW_BUCKET = OLD_BUCKET.replace("programs.bucket ", "programs.buckets ")
NEW_BUCKET += "\n\ndef test_sorts():\n    assert bucket([1, 1], 2) == [0, 2]\n"
DOUBLE_TESTS = unit("double", "double, half", "    assert half(4) == 2\n")
MORE_DOUBLE = DOUBLE_TESTS + "\n\ndef test_double():\n    assert double(5) == 10\n"
FIRST: Files = {
    "programs/gcd.py": GCD.format("a % b", "b"),
    "programs/flatten.py": FLATTEN.format("x"),
    "programs/clamp.py": CLAMP.format("max"),
    "programs/bucket.py": BUCKET.format("0"),
    "programs/double.py": DOUBLE.format("+"),
    "programs/version.py": "VERSION = 1\n",
    "checks/test_clamp.py": OLD_CLAMP + NETWORK + LUCK,
    "checks/test_bucket.py": OLD_BUCKET,
    "checks/test_double.py": DOUBLE_TESTS,
    **NOISE[0],
}


class Work:
    """A git work tree that is written commit by commit."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.day = folder, 0
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, author: str = "a") -> str:
        date = f"2026-01-{self.day + 1:02d}T00:00:00Z"
        names = {f"GIT_{who}_{what}": author for who in ("AUTHOR", "COMMITTER")
                 for what in ("NAME", "EMAIL")}  # fmt: skip
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        variables = {**os.environ, **names, **dates}
        return subprocess.run(
            ["git", *words], cwd=self.folder, env=variables, check=True, capture_output=True,
            text=True,
        ).stdout  # fmt: skip

    def commit(self, message: str, files: Files, author: str = "a") -> None:
        self.day += 1
        for name, text in files.items():
            file = self.folder / name
            if text is None:
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.git("add", "-A", "-f")
        self.git("commit", "-qm", message, author=author)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    work = Work(tmp_path_factory.mktemp("mined") / "na me (é) x")
    work.commit("Begin", FIRST)
    work.commit(
        "Mend gcd",
        {"programs/gcd.py": GCD.format("b", "a % b")} | cases("gcd", [[[4, 6], 2], [[9, 3], 3]]),
    )
    flat = cases("flatten", [[[[[1], [2]]], [1, 2]]])
    work.commit("Mend flatten", {"programs/flatten.py": FLATTEN.format("y")} | flat | NOISE[1])
    clamp = OLD_CLAMP + NETWORK + f"\n\ndef test_clamp():\n{TWO}"
    mended: Files = {"programs/clamp.py": CLAMP.format("min"), "checks/test_clamp.py": clamp}
    odd = os.fsdecode(b"checks/data/\xe9.bin")
    work.commit("Mend clamp", mended | {odd: bytes(range(256))})
    (work.folder / "checks/data/link").symlink_to("../test_clamp.py")
    renamed: Files = {"programs/bucket.py": None, "programs/buckets.py": BUCKET.format("v")}
    work.commit("Mend and rename bucket", renamed | {"checks/test_bucket.py": NEW_BUCKET})
    work.commit("Test of double", {"checks/test_double.py": MORE_DOUBLE})
    work.commit("Say more", {"README.md": "Programs.\n"})
    work.commit("Mend double", {"programs/double.py": DOUBLE.format("*")})
    work.git("checkout", "-qb", "tests-first")
    sign = "def sign(x):\n    return (x > 0) - (x {} 0)\n\n\ndef one():\n    return 1\n"
    test = unit("sign", "one, sign", "    assert one() == 1\n", "    assert sign(-2) == -1\n")
    work.git("checkout", "-q", "main")
    work.commit("Begin sign", {"programs/sign.py": sign.format(">")}, "b")
    work.git("checkout", "-qB", "tests-first")
    work.commit("Test of sign", {"checks/test_sign.py": test}, "c")
    work.commit("Mend sign", {"programs/sign.py": sign.format("<")}, "d")
    work.git("checkout", "-q", "main")
    work.commit("Say even more", {"README.md": "Some programs.\n"})
    work.git("merge", "-q", "--no-ff", "tests-first", "-m", "Merge pull request #1", author="b")
    work.git("checkout", "-qb", "whole")
    work.commit("Mend half", {
        "programs/double.py": DOUBLE.format("*").replace("x / 2", "x // 2"),
        "checks/test_double.py": MORE_DOUBLE + "\n\ndef test_half():\n    assert half(5) == 2\n",
    }, "c")  # fmt: skip
    work.git("checkout", "-q", "main")
    work.commit("Say all", {"README.md": "All programs.\n"}, "b")
    work.git("merge", "-q", "--no-ff", "whole", "-m", "Merge pull request #2", author="b")
    return work


def selfplay(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "selfplay", *words, "sandbox=bubblewrap", "json=true"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def mined(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("a suite (é)") / "programs.jsonl"
    done = selfplay("mine", f"repo={work.folder}", f"out={out}")
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def tasks(mined: Path) -> dict[str, SuiteTask]:
    """{last line of the problem statement: task}"""
    found = read_suite(mined)
    return {task.solve_task.problem_statement.split("\n")[-1]: task for task in found}


def test_every_commit_has_an_outcome(mined: Path) -> None:
    log = [json.loads(x) for x in mined.with_name(f"{mined.name}.log").read_text().splitlines()]
    assert {line["subject"] or line["detail"][:3]: line["outcome"] for line in log} == {
        "Mend gcd": "kept",
        "Mend flatten": "kept",
        "Mend clamp": "kept",
        "Mend and rename bucket": "kept",
        "Test of double": "no_source",
        "Say more": "no_source",
        "Mend double": "kept",
        "Begin sign": "no_tests",
        "Test of sign": "no_source",
        "Mend sign": "no_tests",
        "Say even more": "no_source",
        "Merge pull request #1": "kept",
        "Mend half": "kept",
        "Say all": "no_source",
        "its": "in_branch",  # the merge of it
    }, log


def test_data_elsewhere_belongs_to_the_oracle(tasks: dict[str, SuiteTask]) -> None:
    task = tasks["Mend gcd"].solve_task
    assert "data/gcd.json" in task.artifact.test_files
    assert "gcd.json" not in task.artifact.bug_patch
    assert len(task.fail_to_pass) == 2
    assert task.pass_to_pass  # of the nearest other test file


def test_what_fails_in_any_case_is_left_out(tasks: dict[str, SuiteTask]) -> None:
    task = tasks["Mend clamp"].solve_task
    assert task.fail_to_pass == ("checks/test_clamp.py::test_clamp",)
    assert task.pass_to_pass == ("checks/test_clamp.py::test_0",)
    assert "--deselect=checks/test_clamp.py::test_of_the_network" in task.artifact.test_script


def test_a_renamed_file_is_broken_under_its_new_name(tasks: dict[str, SuiteTask]) -> None:
    task = tasks["Mend and rename bucket"].solve_task
    assert task.fail_to_pass == ("checks/test_bucket.py::test_sorts",)
    assert "programs/buckets.py" in task.artifact.bug_patch
    assert "programs/bucket.py" not in task.artifact.bug_patch


def test_several_commits_are_one_fix(tasks: dict[str, SuiteTask], work: Work) -> None:
    double = tasks["Mend double"]
    assert double.solve_task.problem_statement.startswith("Test of double\n\n")
    assert double.solve_task.fail_to_pass == ("checks/test_double.py::test_double",)
    merge = tasks["Merge pull request #1"].solve_task
    assert merge.problem_statement == "Test of sign\n\nMend sign\n\nMerge pull request #1"
    assert merge.fail_to_pass == ("checks/test_sign.py::test_1",)


def test_the_sealed_trees_are_as_before(tasks: dict[str, SuiteTask], work: Work) -> None:
    """Of what a commit touches nothing is left but a rename, what no patch can hold, and tests
    whose old text would not be let in (chance): there the failing ones are taken out."""
    sandbox = BubblewrapSandbox()
    prepared = prepare(load_spec(str(work.folder), find_repos_dir()), sandbox)
    sandbox.close()
    for name, suite_task in tasks.items():
        artifact = suite_task.solve_task.artifact
        _, commit = split_name(suite_task.solve_task.repo)
        assert commit is not None
        tree = place_environment(prepared, place_of(artifact, commit)).tree
        layer = sealed_layer(tree, artifact)
        names = work.git("diff", "--name-only", suite_task.base_commit, commit).splitlines()
        for path in names:
            if (
                name in ("Mend clamp", "Mend and rename bucket")
                or path.startswith('"')
                or path.endswith("link")
            ):
                continue
            content = read_file(tree, layer, path)
            if path == "programs/double.py":
                assert content and content.count(b"\r\n") == content.count(b"\n")
                content = content.replace(b"\r", b"")
            before = subprocess.run(
                ["git", "show", f"{suite_task.base_commit}:{path}"],
                cwd=work.folder, capture_output=True,
            )  # fmt: skip
            assert content == (before.stdout if before.returncode == 0 else None), (name, path)


def test_verify_goes_on_and_one_broken_task_ends_no_other(mined: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in mined.read_text().splitlines()]
    gone = {**lines[0], "instance_id": "gone-1", "repo": "gone@0123456789ab"}
    gone["environment"] = {**gone["environment"], "source": {"local": {"path": "/no/such/place"}}}
    suite = tmp_path / "suite.jsonl"
    suite.write_text("".join(json.dumps(line) + "\n" for line in [gone, *lines]))
    words = ["corpus", "verify", f"out={suite}", "sandbox=bubblewrap"]
    process = subprocess.Popen([sys.executable, "-m", "selfplay", *words], stderr=subprocess.PIPE)
    stored = tmp_path / "suite.jsonl.verified"
    deadline = time.monotonic() + 300
    while not stored.is_file() or stored.read_text().count('"passed"') < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    done = selfplay("corpus", "verify", f"out={suite}")
    assert done.returncode == 3, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert document["passed"] == len(lines)
    assert [f["instance_id"] for f in document["failures"]] == ["gone-1"]
    assert "/no/such/place" in document["failures"][0]["problem"]
    assert " judged before" in done.stderr
    ids = [json.loads(x).get("instance_id") for x in stored.read_text().splitlines()]
    assert all(ids.count(line["instance_id"]) == 1 for line in lines)  # none was judged twice
