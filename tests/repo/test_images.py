"""Docker images as a source: what is taken out of them, and a bug planted, found and mended."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfplay.bugs.artifact import artifact_id
from selfplay.bugs.grading.grade import grade
from selfplay.bugs.patches.layers import make_patch, normal_layer, reverse_patch
from selfplay.bugs.test_edits.weakening import weakening_layer
from selfplay.bugs.test_runs import pytest_framework, scripts
from selfplay.bugs.test_runs.runner import TestRunner
from selfplay.bugs.validation.validate import validate
from selfplay.errors import RepoError, UserError
from selfplay.repo.history import past_changes
from selfplay.repo.prepare import PreparedRepo, prepare
from selfplay.repo.sources.archives import extract_folder
from selfplay.repo.sources.docker_image import take_history
from selfplay.repo.sources.git import git
from selfplay.repo.spec import ImageSource, RepoSpec, load_spec
from selfplay.sandbox.base import Job, Sandbox
from selfplay.sandbox.pool import RetryingSandbox
from selfplay.sandbox.select import open_sandbox
from selfplay.types import BugArtifact, FileChange, SolveTask

from .image_files import CHANGES, write_image

NAME, WORKDIR = "selfplay-test-shop:1", "/srv/shop"
PRICES = """\
def total(prices):
    result = 0
    for price in prices:
        result += price
    return result


def discount(cents, percent):
    return cents - cents * percent // 100


def double(cents):
    return cents * 2
"""
TESTS = """\
import pytest
from shop.prices import discount, double, total


@pytest.mark.parametrize("prices", [(), (1,), (1, 2), (3, 4, 5)])
def test_total(prices):
    assert total(prices) == sum(prices)


@pytest.mark.parametrize("percent", [0, 10, 50])
def test_discount(percent):
    assert discount(100, percent) == 100 - percent


def test_double():
    assert double(2) == 4
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git work tree as an image may hold one, with traps in its .git."""
    root = tmp_path_factory.mktemp("image") / "project"
    (root / "shop").mkdir(parents=True)
    (root / "tests").mkdir()
    (root / "shop" / "__init__.py").touch()
    (root / "tests" / "test_prices.py").write_text(TESTS, encoding="utf-8")
    git("init", "-q", "-b", "main", cwd=root)
    for text in (PRICES.replace("* 2", "+ cents"), PRICES):
        (root / "shop" / "prices.py").write_text(text, encoding="utf-8")
        git("add", "-A", cwd=root)
        git("commit", "-q", "-m", "prices", cwd=root)
    with (root / ".git" / "config").open("a") as file:
        file.write('[core]\n\tfsmonitor = "touch /tmp/selfplay-fsmonitor"\n\tworktree = /\n')
    (root / ".git" / "objects" / "info" / "alternates").write_text("/etc\n", encoding="utf-8")
    (root / "out").symlink_to("/etc/passwd")
    (root / "inner").symlink_to("shop")
    (root / "shop" / "__pycache__").mkdir()
    (root / "shop" / "__pycache__" / "prices.pyc").write_bytes(b"x")
    return root


@pytest.fixture(scope="module")
def docker_sandbox() -> Iterator[Sandbox]:
    sandbox = RetryingSandbox(open_sandbox("docker"))
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def boxed(project: Path, docker_sandbox: Sandbox, place: Path) -> Iterator[PreparedRepo]:
    import docker

    archive = project.parent / "root.tar"
    write_image(archive, project, WORKDIR)
    client = docker.from_env()
    repository, tag = NAME.split(":")
    client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=CHANGES)
    spec = RepoSpec(name="boxed", source=ImageSource(image=NAME, workdir=WORKDIR))
    yield prepare(spec, docker_sandbox, cache_dir=place)
    client.images.remove(NAME, force=True)
    client.close()


@pytest.mark.docker
def test_what_is_taken_out_of_an_image(boxed: PreparedRepo, docker_sandbox: Sandbox) -> None:
    tree = boxed.environment.tree
    assert sorted(path.name for path in tree.iterdir()) == ["inner", "shop", "tests"]
    assert not (tree / "shop" / "__pycache__").exists()
    assert boxed.environment.image is not None and boxed.environment.image.startswith("sha256:")
    assert len(boxed.profile.tests) == 8
    assert boxed.profile.tests_reaching("shop/prices.py", "total")
    assert [c.subject for c in past_changes(boxed, "shop/prices.py", "double", 9)] == ["prices"]
    assert {f.qualname for f in boxed.functions} == {"total", "discount", "double"}
    program = (
        "import pytest, coverage, shop, sys, os\n"
        "print(sys.prefix, pytest.__file__, coverage.__file__, shop.__file__)\n"
        "print(os.listdir('/srv/shop'))\n"
        "print([p for p in sys.path if os.path.isfile(p + '/shop/prices.py')])\n"
    )
    job = Job(environment=boxed.environment, argv=("python", "-c", program))
    lines = docker_sandbox.run(job).output.decode().splitlines()
    prefix, runner, probe, package = lines[0].split()
    assert prefix == "/opt/python" and runner.startswith("/opt/python/")
    assert probe.startswith("/opt/selfplay/packages/")
    assert package == "/testbed/shop/__init__.py"
    assert lines[1:] == ["[]", "['/testbed']"]  # no other copy of the answer


@pytest.mark.docker
def test_a_bug_in_an_image(boxed: PreparedRepo, docker_sandbox: Sandbox) -> None:
    tree, runner = boxed.environment.tree, TestRunner(docker_sandbox, boxed.environment)
    text = PRICES.replace("result += price", "result = price").encode()
    broken = tuple(t for t in boxed.profile.tests if "test_total" in t)[-2:]
    files = ("tests/test_prices.py",)
    artifact = BugArtifact(
        test_script=pytest_framework.pytest_script(files),
        test_files=files,
        test_parser=scripts.parser_source("pytest"),
        bug_patch=make_patch(
            tree, {}, normal_layer(tree, {"shop/prices.py": FileChange(content=text)})
        ),
        weakening_patch=make_patch(tree, {}, weakening_layer(tree, broken)),
    )
    report = validate(artifact, boxed.environment, runner)
    assert report.verdict == "valid", [c.detail for c in report.checks]
    assert set(broken) <= set(report.fail_to_pass)
    task = SolveTask(
        bug_id=artifact_id(artifact),
        repo="boxed",
        artifact=artifact,
        fail_to_pass=report.fail_to_pass,
        pass_to_pass=report.pass_to_pass,
    )
    assert grade(task, reverse_patch(artifact.bug_patch), runner).resolved
    assert grade(task, "", runner).reward == -1


@pytest.mark.docker
def test_the_image_is_part_of_the_key(
    boxed: PreparedRepo, docker_sandbox: Sandbox, place: Path
) -> None:
    again = prepare(boxed.spec, docker_sandbox, cache_dir=place)
    assert again.environment == boxed.environment
    for image, workdir, said in (
        ("selfplay-no-such-image:1", WORKDIR, "no-such-image:1: neither on this engine"),
        (NAME, "/srv/other", "has no /srv/other"),
        (NAME, "/etc/passwd", "is no directory"),
        (NAME, "/usr", "directory of the repository itself"),
    ):
        spec = RepoSpec(name="boxed", source=ImageSource(image=image, workdir=workdir))
        with pytest.raises(UserError, match=said):
            prepare(spec, docker_sandbox, cache_dir=place / "refused")


def test_other_sandboxes_have_no_images(sandbox: Sandbox, place: Path) -> None:
    (place / "specs").mkdir()
    text = "source: {image: {image: 'python:3.11', workdir: /app}}\n"
    (place / "specs" / "boxed.yaml").write_text(text, encoding="utf-8")
    spec = load_spec("boxed", place / "specs")
    assert spec.source == ImageSource(image="python:3.11", workdir="/app")
    for given in (sandbox, RetryingSandbox(sandbox)):
        with pytest.raises(UserError, match=r"boxed: source\.image: .*: images .*sandbox=docker"):
            prepare(spec, given, cache_dir=place)
    (place / "specs" / "boxed.yaml").write_text(text.replace("/app", "app"), encoding="utf-8")
    with pytest.raises(UserError, match="workdir: 'app' is not an absolute path"):
        load_spec("boxed", place / "specs")


def test_a_strangers_git_folder_only_yields_objects(project: Path, tmp_path: Path) -> None:
    tree, history = tmp_path / "tree", tmp_path / "history.git"
    subprocess.run(["cp", "-a", str(project), str(tree)], check=True)
    (tree / "shop" / ".GIT").write_text("gitdir: /somewhere\n", encoding="utf-8")
    (tree / ".git" / "hooks").mkdir(exist_ok=True)
    (tree / ".git" / "hooks" / "post-checkout").touch(mode=0o755)
    take_history(tree, history)
    assert not (tree / ".git").exists() and not (tree / "shop" / ".GIT").exists()
    assert git("rev-list", "--count", "HEAD", cwd=history).strip() == "2"
    assert "fsmonitor" not in (history / "config").read_text(encoding="utf-8")
    assert not (history / "hooks").exists()
    assert not (history / "objects" / "info" / "alternates").exists()
    (tree / ".git" / "objects").mkdir(parents=True)
    (tree / ".git" / "HEAD").write_text("ref: refs/heads/none\n", encoding="utf-8")
    take_history(tree, tmp_path / "none.git")
    assert not (tmp_path / "none.git").exists() and not (tree / ".git").exists()


def test_links_and_devices_of_an_image(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    entries: list[tuple[str, bytes, str]] = [
        ("app", tarfile.DIRTYPE, ""),
        ("app/file", tarfile.REGTYPE, ""),
        ("app/hard", tarfile.LNKTYPE, "app/file"),
        ("app/near", tarfile.SYMTYPE, "file"),
        ("app/absolute", tarfile.SYMTYPE, "/etc/passwd"),
        ("app/above", tarfile.SYMTYPE, "../other"),
        ("app/again", tarfile.LNKTYPE, "app/above"),
        ("app/pipe", tarfile.FIFOTYPE, ""),
        ("app/null", tarfile.CHRTYPE, ""),
    ]
    for further in ([], [("app/../../x", tarfile.REGTYPE, "")]):
        with tarfile.open(archive, "w") as tar:
            for name, kind, target in [*entries, *further]:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.mode = kind, target, 0o755
                tar.addfile(entry, io.BytesIO())
        if further:
            with pytest.raises(RepoError, match="cannot be unpacked"):
                extract_folder(archive, tmp_path / "refused")
        else:
            extract_folder(archive, tmp_path / "tree")
    found = sorted(path.name for path in (tmp_path / "tree").iterdir())
    assert found == ["file", "hard", "near"]
