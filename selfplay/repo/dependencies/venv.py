"""The folder of installed packages, as a sandbox sees it: a virtual environment of its own."""

from __future__ import annotations

import configparser
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

PACKAGES = "/opt/selfplay/packages"
"""Where it is mounted."""
GUARD = "selfplay_guard"
DJANGO = ("selfplay_django_runner", "selfplay_django")
INSIDE = Path(__file__).parent / "inside"
PLUGINS = {
    GUARD: INSIDE / "guard.py",
    DJANGO[0]: INSIDE / "django_runner.py",
    DJANGO[1]: INSIDE / "django_tests.py",
}
"""Plugins of pytest that lie among the packages, by their modules' names there."""
STEADY = {
    "--hypothesis-profile=ci": ("hypothesis/_settings.py", 'register_profile("ci"'),
    "--benchmark-disable": ("pytest_benchmark/plugin.py", "--benchmark-disable"),
}
"""Options for plugins that are there, so that a run depends on the code alone: no random examples
and no deadlines; benchmarks run once, as tests. Each with a file that knows it, and how."""
COMMAND = """\
#!{packages}/bin/python
import sys
from {module} import {first}
sys.exit({name}())
"""


def steady_options(packages: Path) -> tuple[str, ...]:
    """Options of pytest that the installed plugins need for runs that can be repeated."""
    return tuple(
        option
        for option, (name, text) in STEADY.items()
        if (packages / name).is_file() and text in (packages / name).read_text("utf-8", "replace")
    )


def make_interpreter(packages: Path) -> None:
    """`bin/python`, and beside `bin/` the file that makes it a virtual environment: nothing of the
    host's site-packages (plugins that load themselves, other versions) can be imported inside."""
    home = Path(sys.base_prefix) / "bin"
    (packages / "bin").mkdir(exist_ok=True)
    python = packages / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(home / f"python3.{sys.version_info.minor}")
    (packages / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\n", encoding="utf-8"
    )


def add_plugins(packages: Path) -> None:
    """Put our plugins among the packages; a run that wants one names it."""
    for name, file in PLUGINS.items():
        shutil.copy(file, packages / f"{name}.py")


def add_metadata(metadata: Mapping[str, bytes], packages: Path) -> None:
    """A project's own *.dist-info, and its commands in `bin/`; paths were checked by `build`."""
    for path, content in metadata.items():
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        told = without_description(content) if path.endswith("/METADATA") else content
        (packages / path).write_bytes(told)
        if path.endswith("/entry_points.txt"):
            _add_commands(content.decode("utf-8", "replace"), packages / "bin")


def without_description(metadata: bytes) -> bytes:
    """METADATA or PKG-INFO without the project's long description: often a module's docstring, and
    so an answer word for word (`parse` has it so)."""
    headers = metadata.replace(b"\r\n", b"\n").partition(b"\n\n")[0].rstrip(b"\n") + b"\n"
    return re.sub(rb"(?mi)^Description:.*\n(?:[ \t|].*\n)*", b"", headers)


def _add_commands(entry_points: str, folder: Path) -> None:
    config = configparser.RawConfigParser(delimiters=("=",), strict=False)
    config.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    try:
        config.read_string(entry_points)
    except configparser.Error:
        return
    if not config.has_section("console_scripts"):
        return
    folder.mkdir(exist_ok=True)
    for command, target in config.items("console_scripts"):
        found = re.fullmatch(r"([\w.]+)\s*:\s*([\w.]+)\s*(\[.*\])?", target.strip())
        if found is None or not re.fullmatch(r"[\w.-]+", command) or (folder / command).exists():
            continue
        name = found[2]
        text = COMMAND.format(
            packages=PACKAGES, module=found[1], first=name.partition(".")[0], name=name
        )
        (folder / command).write_text(text, encoding="utf-8")
        (folder / command).chmod(0o755)
