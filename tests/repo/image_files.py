"""A small image made from this machine's files: interpreter, shell, pytest, a project with tests.

No registry is needed; what is in it besides the project is found by `ldd`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

from tests.own_packages import pytest_parts

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
STDLIB, SITE = f"opt/python/lib/python{VERSION}", f"opt/python/lib/python{VERSION}/site-packages"
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "tkinter"}
LEFT_OUT |= {"ensurepip", "lib2to3", "pydoc_data", "turtledemo", "distutils"}
TOOLS = ("sh", "bash", "cp", "rm", "cat", "tar", "env")
CHANGES = [f"ENV PATH=/opt/python/bin:/bin PYTHONPATH=/{SITE}"]


def libraries(program: Path) -> set[Path]:
    """Shared libraries of a program, its loader among them."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return {Path(found) for found in re.findall(r"(/\S+) \(0x", done.stdout)}


def write_image(archive: Path, project: Path, workdir: str) -> None:
    """Write the image's root as a tar archive."""
    python = Path(sys.base_prefix) / "bin" / f"python{VERSION}"
    stdlib = Path(sysconfig.get_path("stdlib"))
    needed = libraries(python)

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = entry.name.split("/")
        return None if LEFT_OUT & set(parts) or "config-" in entry.name else entry

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in entry.name else entry

    with tarfile.open(archive, "w", dereference=True) as tar:
        tar.add(stdlib, STDLIB, filter=kept)
        tar.add(python.resolve(), f"opt/python/bin/python{VERSION}")
        for path in pytest_parts():
            tar.add(path, f"{SITE}/{path.name}", filter=plain)
        tar.add(project / "shop", f"{SITE}/shop")  # installed, not only there
        for module in (stdlib / "lib-dynload").glob("*.so"):
            needed |= libraries(module)
        for name in TOOLS:
            program = Path("/usr/bin") / name
            tar.add(program.resolve(), f"bin/{name}")
            needed |= libraries(program)
        for library in needed:
            tar.add(library.resolve(), str(library)[1:])
        for name in ("tmp/", "testbed/"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
    with tarfile.open(archive, "a") as tar:
        tar.add(project, workdir[1:])
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, f"/opt/python/bin/python{VERSION}"
        tar.addfile(link)
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size = len(text := b"root:x:0:0:root:/root:/bin/sh\n")
        tar.addfile(passwd, io.BytesIO(text))
