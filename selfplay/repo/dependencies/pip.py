"""Calls of pip, and what they say: versions installed, or that there is nothing to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from selfplay.errors import RepoError
from selfplay.repo.dependencies.requirements import Declared, without_versions

NO_SOLUTION = re.compile(
    r"No matching distribution found for |ResolutionImpossible|conflicting dependencies"
    r"|Could not find a version|metadata-generation-failed|inconsistent version|Invalid requirement"
)
NO_WHEEL = re.compile(r"satisfies the requirement (\S+).*\(from versions: none\)")
FROM_SOURCE = "  # source"
"""Marks a version in a lock that was built here, for there was no wheel (or none was wanted)."""
ELSEWHERE = ("PREFIX", "ROOT", "TARGET", "PYTHON", "REQUIREMENT", "EDITABLE")
SWITCHES = ("USER", "REQUIRE_HASHES", "REQUIRE_VIRTUALENV", "DRY_RUN", "NO_DEPS")
"""Settings of pip that suit somebody's own installations, such as PIP_USER on a cluster, and change
what is installed and where, if they are taken at all. Where packages come from stays theirs."""
CONFIGURED = re.compile(r"Cannot set --home and --prefix|Can not combine|--require-hashes mode")


class Unresolvable(RepoError):
    """No set of distributions meets the requirements; asking for less may help.

    nothing_of    canonical name of a package that the index has nothing usable of, or ""
    """

    def __init__(self, message: str, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        found = [match[1] for match in map(NO_WHEEL.search, errors) if match]
        names = (re.split(r"[^A-Za-z0-9._-]", name)[0] for name in found)
        self.nothing_of = next((canonicalize_name(name) for name in names), "")


def without(wanted: Sequence[str], name: str) -> list[str]:
    """The requirements on other packages than that one (a canonical name)."""
    return [text for text in wanted if canonicalize_name(Requirement(text).name) != name]


def levels(declared: Declared) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(words for a log, requirements) from everything declared down to the least that helps."""
    everything = (*declared.runtime, *declared.testing)
    tests = without_versions(declared.testing)
    yield "what the project declares", everything
    if tests != declared.testing:
        yield "what it declares, tests' needs in any version", (*declared.runtime, *tests)
    if declared.testing:
        yield "its run-time dependencies", declared.runtime
    if declared.runtime:
        yield "its run-time dependencies in any version", without_versions(declared.runtime)


def install_into(requirements: Sequence[str], packages: Path, *options: str) -> tuple[str, ...]:
    """Install into `packages`; the lines of a lock, sorted. Raises `RepoError`, `Unresolvable`."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        target = ("--no-compile", "--target", packages, "--report", report)
        run_pip("install", *target, *options, "--", *requirements)
        return lock_lines(report.read_text(encoding="utf-8"))


def lock_lines(report: str) -> tuple[str, ...]:
    """From pip's installation report: "name==1.0", marked where no wheel was downloaded."""
    lines = []
    for entry in json.loads(report)["install"]:
        metadata, url = entry["metadata"], entry["download_info"]["url"]
        mark = "" if url.partition("#")[0].endswith(".whl") else FROM_SOURCE
        lines.append(f"{canonicalize_name(metadata['name'])}=={metadata['version']}{mark}")
    return tuple(sorted(lines))


def install_locked(name: str, lock: Sequence[str], packages: Path) -> tuple[str, ...]:
    """Exactly the versions of a lock, nothing else; source is built only where the lock says so."""
    pins = {line: line.partition("#")[0].strip() for line in lock}
    wheels = ",".join(
        Requirement(pin).name for line, pin in pins.items() if not line.endswith(FROM_SOURCE)
    )
    only = [f"--only-binary={wheels}"] if wheels else []
    try:
        return install_into(tuple(pins.values()), packages, "--no-deps", *only)
    except RepoError as error:
        raise RepoError(f"{name}: cannot install what its lock names: {error}") from None


def read_lock(text: str) -> tuple[str, ...]:
    """Lines of a lock. Raises `ValueError` for any line that is not one version of one package."""
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for line in lines:
        try:
            pin = Requirement(line.removesuffix(FROM_SOURCE))
        except InvalidRequirement:
            pin = None
        exact = pin is not None and [s.operator for s in pin.specifier] == ["=="]
        if pin is None or not exact or pin.url or pin.marker:
            raise ValueError(f"{line!r} is not of the form name==version")
    return tuple(lines)


def run_pip(command: str, *arguments: str | Path) -> None:
    """Run pip. Raises `RepoError` with its reason, `Unresolvable` where there is no solution."""
    options = ["-q", "--disable-pip-version-check", "--no-input"]
    run_python(["-m", "pip", command, *options, *map(str, arguments)])


def run_python(argv: Sequence[str]) -> None:
    """Run this interpreter. Raises `RepoError`: the last error that it prints."""
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=environment(),
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")]
        message = (errors or lines or ["no message"])[-1]
        if any(map(NO_SOLUTION.search, errors)):
            raise Unresolvable(message, errors)
        if CONFIGURED.search(message):
            message += f" (a setting of pip's own: {sys.executable} -m pip config list)"
        raise RepoError(message)


def environment() -> dict[str, str]:
    """Ours, without the variables that turn pip to another place or another kind of installation;
    switches are told to be off, since a file of pip's may have them on."""
    unwanted = {f"PIP_{name}" for name in ELSEWHERE}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, **{f"PIP_{name}": "0" for name in SWITCHES}}
