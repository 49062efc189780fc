"""A Docker image as a source: its tree, its history, and how tests are run in it.

The image's own interpreter and packages run the tests. Where it lacks pytest or coverage, ours are
mounted beside them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from selfplay.errors import RepoError, UserError
from selfplay.files import write_atomic
from selfplay.records import from_plain, to_plain
from selfplay.repo.dependencies.install import TOOLS, install_tools, modules_of
from selfplay.repo.dependencies.venv import PACKAGES
from selfplay.repo.sources.archives import MAX_BYTES, extract_folder
from selfplay.repo.sources.git import git
from selfplay.repo.spec import ImageSource, RepoSpec
from selfplay.sandbox.base import WORKDIR, Environment, Job, Quota, Sandbox
from selfplay.sandbox.docker.image_store import ImageFacts, image_store
from selfplay.sandbox.host import make_readable

log = logging.getLogger(__name__)
IMAGE_FILE = "image.json"
BYTE_CODE = "/opt/selfplay/pycache"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OLDER_PYTHONS = ("exceptiongroup", "tomli", "typing-extensions")
"""What our tools need before Python 3.11; pip judges that by its own version."""
PROBE = """
command -v bash >/dev/null || exit 8
for p in python python3; do command -v $p >/dev/null && exec $p /in/probe.py; done
exit 9
"""
MISSING = {8: "no bash on its PATH", 9: "no python on its PATH"}
PROBE_TIMEOUT_S = 120.0
SYSTEM = ("/", "/bin", "/etc", "/lib", "/opt", "/root", "/sbin", "/tmp", "/usr", "/var")


def find_image(spec: RepoSpec, sandbox: Sandbox) -> ImageFacts | None:
    """The image that a specification names, None for other sources. `UserError` when it cannot be
    had, or when the sandbox runs no images."""
    source = spec.source
    if not isinstance(source, ImageSource):
        return None
    workdir = str(PurePosixPath(source.workdir))
    if workdir in SYSTEM or ".." in PurePosixPath(workdir).parts:
        raise UserError(
            f"{spec.name}: source.image.workdir: {source.workdir}: name the directory of the "
            "repository itself, such as /testbed"
        )
    wanted = f"{spec.name}: source.image: {source.image}"
    return image_store(sandbox, wanted).find_image(source.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDocument:
    """image.json: the image's id, its PATH and PYTHONPATH, and the folders and files in it that
    are covered with something empty."""

    image: str
    path: str
    python_path: str
    hidden: tuple[str, ...] = ()


def fetch_image(spec: RepoSpec, image: ImageFacts, sandbox: Sandbox, folder: Path) -> None:
    """Into `folder`: tree/, packages/ with the test tools that the image lacks, perhaps
    history.git, and image.json, from which `image_environment` works.

    Raises `RepoError`, `UserError`, `SandboxError`.
    """
    source = spec.source
    assert isinstance(source, ImageSource)
    archive, tree = folder / "image.tar", folder / "tree"
    store = image_store(sandbox, spec.name)
    store.copy_from_image(image.id, source.workdir, archive, 2 * MAX_BYTES)
    extract_folder(archive, tree)
    archive.unlink()
    take_history(tree, folder / "history.git")
    workdir = str(PurePosixPath(source.workdir))
    hidden = [] if PurePosixPath(workdir).is_relative_to(WORKDIR) else [(workdir, True)]
    document = ImageDocument(
        image=image.id,
        path=image.variables.get("PATH") or DEFAULT_PATH,
        python_path=image.variables.get("PYTHONPATH", ""),
    )
    _write(folder, document, hidden)
    packages = folder / "packages"
    packages.mkdir()
    make_readable(folder)
    found = _probe(spec.name, image_environment(folder, f"{image.id}-probe"), sandbox)
    older = tuple(map(int, found["version"].split("."))) < (3, 11)
    tools = [tool for tool in TOOLS if tool.partition(">")[0] in found["missing"]]
    tools += OLDER_PYTHONS if tools and older else ()
    install_tools(spec.name, [*tools, *spec.install], found["version"], packages)
    (packages / "bin").mkdir(exist_ok=True)
    (packages / "bin" / "python").unlink(missing_ok=True)
    (packages / "bin" / "python").symlink_to(found["executable"])
    _write(folder, document, [*hidden, *((str(p), bool(d)) for p, d in found["copies"])])


def image_environment(folder: Path, key: str) -> Environment:
    """The environment of a prepared image below `folder`."""
    document = from_plain(ImageDocument, json.loads((folder / IMAGE_FILE).read_bytes()))
    source = [f"{WORKDIR}/src"] if (folder / "tree" / "src").is_dir() else []
    given = [document.python_path] if document.python_path else []
    variables = {"PYTHONPATH": ":".join([*source, WORKDIR, *given, PACKAGES])}
    mounts = {str(folder / "packages"): PACKAGES}
    for number, path in enumerate(document.hidden):
        mounts[str(folder / "hidden" / str(number))] = path
    if (folder / "pycache").is_dir():
        mounts[str(folder / "pycache")] = BYTE_CODE
        variables["PYTHONPYCACHEPREFIX"] = BYTE_CODE
    return Environment(
        tree=folder / "tree",
        mounts=mounts,
        path=f"{PACKAGES}/bin:{document.path}",
        digest=key,
        image=document.image,
        variables=variables,
    )


def _write(folder: Path, document: ImageDocument, hidden: list[tuple[str, bool]]) -> None:
    """Write image.json. `hidden`: (path, whether a directory) of further copies of the source in
    the image, the answer to every bug: something empty is mounted over each."""
    for number, (_, is_directory) in enumerate(hidden):
        cover = folder / "hidden" / str(number)
        cover.parent.mkdir(exist_ok=True)
        cover.mkdir(exist_ok=True) if is_directory else cover.touch()
    text = json.dumps(to_plain(replace(document, hidden=tuple(path for path, _ in hidden))))
    write_atomic(folder / IMAGE_FILE, text.encode())


def _probe(name: str, environment: Environment, sandbox: Sandbox) -> dict[str, Any]:
    """What `image_probe` finds, checked: the image may say anything."""
    inputs = {
        "probe.py": Path(__file__).with_name("image_probe.py").read_bytes(),
        "modules.json": json.dumps(sorted(modules_of(environment.tree))).encode(),
    }
    quota = Quota(timeout_s=PROBE_TIMEOUT_S)
    job = Job(environment=environment, argv=("sh", "-c", PROBE), inputs=inputs, quota=quota)
    result = sandbox.run(job)
    try:
        found: dict[str, Any] = json.loads(result.files["python.json"])
        plain = re.fullmatch(r"3\.\d{1,2}", found["version"]) and found["executable"][0] == "/"
        paths = [PurePosixPath(path) for path, _ in found["copies"]]
        if not plain or any(p.parent.name[5:] != "packages" for p in paths):
            raise ValueError(found)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        said = result.output[-300:].decode(errors="replace").strip()
        why = MISSING.get(result.exit_code or 0, f"{said or error!r}")
        raise RepoError(f"{name}: the image cannot run tests as an ordinary user: {why}") from None
    return found


def take_history(tree: Path, history: Path) -> None:
    """Move what a tree's .git knows into a bare repository of our own making, and remove every
    .git: objects and references only, no configuration, hooks or pointers to other places."""
    source = tree / ".git"
    if (source / "objects").is_dir() and not source.is_symlink():
        git("init", "-q", "--bare", "--template=", str(history))
        for name in ("HEAD", "packed-refs", "shallow", "objects", "refs"):
            _copy_plain(source / name, history / name)
        for name in ("alternates", "http-alternates"):
            (history / "objects" / "info" / name).unlink(missing_ok=True)
        try:
            git("rev-parse", "--verify", "-q", "HEAD^{commit}", cwd=history)
        except RepoError:
            log.warning("the image's .git has no commit that can be read: there is no history")
            shutil.rmtree(history)
    for folder, folders, files in os.walk(tree):
        for name in [n for n in (*folders, *files) if n.lower() == ".git"]:
            place = Path(folder) / name
            plain = place.is_symlink() or not place.is_dir()
            place.unlink() if plain else shutil.rmtree(place)
        folders[:] = [n for n in folders if n.lower() != ".git"]


def _copy_plain(source: Path, target: Path) -> None:
    """Copy a file, or a directory without its links."""
    if source.is_symlink():
        return
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=_links)
    elif source.is_file():
        shutil.copyfile(source, target)


def _links(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_symlink()}
