"""Real pip on an index of tiny wheels: what is asked for, what less is tried, what is locked."""

from __future__ import annotations

import logging
import tarfile
import zipfile
from pathlib import Path

import hypothesis
import pytest

from selfplay.errors import RepoError, UserError
from selfplay.repo.dependencies import install as subject
from selfplay.repo.dependencies.install import install_packages
from selfplay.repo.dependencies.pip import levels, lock_lines, read_lock
from selfplay.repo.dependencies.requirements import Declared
from selfplay.repo.dependencies.venv import steady_options
from selfplay.repo.spec import LocalSource, RepoSpec, read_spec

pytestmark = pytest.mark.slow


def make_wheel(folder: Path, name: str, version: str, needs: tuple[str, ...] = ()) -> None:
    """A wheel of one module that holds its own version."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only packages that pip can get; `tool` stands for the test tools."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, version in [("tool", "1"), ("helper", "1.0"), ("helper", "2.0"), ("base", "1.0")]:
        make_wheel(folder, name, version)
    make_wheel(folder, "needy", "1.0", ("helper<2", "calc"))
    make_wheel(folder, "calc", "1.0")
    setup = folder / "setup.py"
    setup.write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\n", encoding="utf-8")
    with tarfile.open(folder / "builds-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "builds-1.0/setup.py")
    setup.unlink()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(subject, "TOOLS", ("tool",))
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def installed(tree: Path, declared: Declared, *, lock: tuple[str, ...] = ()) -> tuple[str, ...]:
    spec = RepoSpec(name="calc", source=LocalSource(path=str(tree)), lock=lock)
    return install_packages(spec, tree, tree.parent / "packages", declared)


def test_what_is_declared_is_installed_and_locked(index: Path, tree: Path) -> None:
    declared = Declared(name="calc", runtime=("base",), testing=("needy",))
    lock = installed(tree, declared)
    assert lock == ("base==1.0", "calc==1.0", "helper==1.0", "needy==1.0", "tool==1")
    folder = tree.parent / "packages"
    assert (folder / "needy.py").is_file()
    assert not (folder / "calc.py").exists(), "the project itself came along, the answer to all"
    assert not list(folder.glob("calc-*")) and (folder / "selfplay_guard.py").is_file()


@pytest.mark.parametrize(
    ("declared", "expected", "said"),
    [
        (Declared(name="", runtime=("base",), testing=("helper==9",)),
         {"base==1.0", "helper==2.0", "tool==1"}, "cannot install what the project declares"),
        (Declared(name="", runtime=("base", "helper>=2"), testing=("needy==1.0",)),
         {"base==1.0", "helper==2.0", "tool==1"}, "tests' needs in any version"),
        (Declared(name="", runtime=("base>=9",)), {"base==1.0", "tool==1"}, "declares"),
        (Declared(name="", testing=("builds>=1", "absent", "base")), {"base==1.0", "tool==1"},
         "there is no wheel of builds"),
        (Declared(name="", runtime=("absent",)), {"tool==1"}, "there is no wheel of absent"),
    ],
    ids=["pins of tests", "run time alone", "pins of run time", "source only", "nothing"],
)  # fmt: skip
def test_less_is_tried_and_said(
    declared: Declared,
    expected: set[str],
    said: str,
    index: Path,
    tree: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert set(installed(tree, declared)) == expected
    assert said in caplog.text
    assert not (tree.parent / "was-run").exists(), "a stranger's setup.py was run here"


def test_a_lock_brings_back_the_same_versions(index: Path, tree: Path) -> None:
    declared = Declared(name="", testing=("helper",))
    lock = ("helper==1.0", "tool==1")  # what was newest when it was made
    assert installed(tree, declared, lock=lock) == lock
    text = (tree.parent / "packages" / "helper.py").read_text(encoding="utf-8")
    assert text == "version = '1.0'\n"


def test_a_lock_that_cannot_be_had(index: Path, tree: Path) -> None:
    with pytest.raises(RepoError, match="calc: cannot install what its lock names: ERROR"):
        installed(tree, Declared(name=""), lock=("helper==3.0",))


def test_levels_name_no_set_twice() -> None:
    declared = Declared(name="", runtime=("a>=1",), testing=("b==1",))
    assert [what for _, what in levels(declared)] == [
        ("a>=1", "b==1"), ("a>=1", "b"), ("a>=1",), ("a",),
    ]  # fmt: skip
    assert list(levels(Declared(name=""))) == [("what the project declares", ())]


def test_lines_of_a_lock() -> None:
    entries = (
        '{"metadata": {"name": "B_b", "version": "2"}, "download_info": {"url": "u/b.tar.gz"}},'
        '{"metadata": {"name": "a", "version": "1"}, "download_info": {"url": "u/a.whl#sha256=0"}}'
    )
    lines = lock_lines(f'{{"install": [{entries}]}}')
    assert lines == ("a==1", "b-b==2  # source")
    assert read_lock("# made by us\n\n" + "\n".join(lines) + "\n") == lines


@pytest.mark.parametrize("line", ["a>=1", "a", "-r x", "a @ file:///x", "a==1; extra=='b'"])
def test_a_lock_holds_versions_alone(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not of the form name==version"):
        read_lock(line)
    (tmp_path / "a.lock").write_text(line, encoding="utf-8")
    yaml = tmp_path / "a.yaml"
    yaml.write_text("source: {pypi: {project: a, version: '1'}}", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.lock: .*requirements\.lock"):
        read_spec(yaml)


def test_a_lock_beside_the_specification_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("b==1\n", encoding="utf-8")
    yaml = tmp_path / "a.yaml"
    yaml.write_text("source: {pypi: {project: a, version: '1'}}", encoding="utf-8")
    assert read_spec(yaml).lock == ("b==1",)


def test_options_of_plugins_that_are_there(tmp_path: Path) -> None:
    files = {
        "pytest_benchmark/plugin.py": "addoption('--benchmark-disable')",
        "hypothesis/_settings.py": "a version that has no such profile: pytest would refuse to run",
    }
    assert steady_options(tmp_path) == ()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert steady_options(tmp_path) == ("--benchmark-disable",)
    (tmp_path / "hypothesis" / "_settings.py").write_text('settings.register_profile("ci", CI)')
    assert steady_options(tmp_path) == ("--hypothesis-profile=ci", "--benchmark-disable")


def test_the_profile_is_known_where_it_is_asked_for() -> None:
    """The real hypothesis beside this test still writes it the way that is looked for."""
    options = steady_options(Path(hypothesis.__file__).parent.parent)
    assert "--hypothesis-profile=ci" in options


def test_settings_of_pip_for_other_installations_change_nothing(
    index: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and a file that suit somebody's home on a cluster: each one ended every install."""
    for name, value in (
        ("PIP_USER", "1"), ("PIP_PREFIX", "/nowhere"), ("PIP_ROOT", "/nowhere"),
        ("PIP_REQUIRE_HASHES", "1"), ("PIP_REQUIRE_VIRTUALENV", "1"), ("PIP_DRY_RUN", "1"),
        ("PIP_NO_DEPS", "1"), ("PIP_PYTHON", "/nowhere/python"),
        ("PIP_REQUIREMENT", "/nowhere/requirements.txt"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nrequire-hashes = true\n[install]\nuser = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    lock = installed(tree, Declared(name="", runtime=("needy",)))
    assert {line.partition("==")[0] for line in lock} == {"tool", "needy", "helper", "calc"}
    settings.write_text("[install]\nprefix = /nowhere\n")
    with pytest.raises(RepoError, match=r"--prefix together \(a setting of pip's own: .* config"):
        installed(tree, Declared(name="", runtime=("needy",)))
