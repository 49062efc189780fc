"""How many real packages become environments with nothing written by hand, and why others do not.

    python scripts/survey_repos.py WHAT... [--file LIST] [--timeout-s 300] [--log FILE]

WHAT is NAME[==VERSION], a package of the index from its source archive (without a version the
newest), or the path or URL of a git repository, perhaps with @COMMIT (else its HEAD). Each is
prepared as `selfplay repos prepare` does it, in a process of its own that is ended after
`--timeout-s` seconds. A list has one a line. With --log, finished packages are appended there and
not repeated by the next call. Prints a table and, as the last line, one JSON object:
{"ready": n, "total": n, "results": [{"repo", "version", "ready", "reason", "tests", "functions",
"seconds"}...]}. The exit code is 0 whatever was found.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement

from selfplay.commands.output import print_json, print_table, say
from selfplay.errors import UserError
from selfplay.files import append_json_lines, read_json_lines

COLUMNS = ("repo", "version", "ready", "tests", "functions", "seconds", "reason")
LONGEST_REASON = 160


def main() -> int:
    """Survey the packages that the command line names."""
    options = parse_options()
    finished = finished_before(options.log)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, version, url in packages(options.names, options.file):
            result = finished.get(f"{name}=={version}") if version else None
            if result is None:
                say(f"surveying {name} {version}".rstrip())
                result = survey(name, version, url, Path(folder), options)
                if options.log:
                    append_json_lines(options.log, [result])
            results.append(result)
    print_table("survey", COLUMNS, [[result[key] for key in COLUMNS] for result in results])
    ready = sum(result["ready"] for result in results)
    print_json({"ready": ready, "total": len(results), "results": results})
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="WHAT")
    parser.add_argument("--file", type=Path, help="a list of them, one a line")
    parser.add_argument("--timeout-s", type=float, default=300.0, help="for each package")
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--log", type=Path, help="JSON lines of finished packages")
    return parser.parse_args()


def packages(names: Sequence[str], file: Path | None) -> Iterator[tuple[str, str, str]]:
    """(name, version or commit or "", URL of a git repository or "") of each argument and line.

    Raises `UserError`.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    for line in [*names, *(line.partition("#")[0].strip() for line in lines)]:
        if not line:
            continue
        if "/" in line:
            url, _, commit = line.partition("@") if "://" not in line else line.rpartition("@")
            url, commit = (url, commit) if url else (line, "")
            commit = commit or head_of(url)
            places = [part for part in Path(url).parts if part not in (".git", "repo")]
            name = re.sub(r"[^A-Za-z0-9._-]+", "-", places[-1]).removesuffix(".git")
            yield name, commit, url
            continue
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            raise UserError(f"{line!r} is not of the form NAME or NAME==VERSION") from None
        pins = [s.version for s in requirement.specifier if s.operator == "=="]
        yield requirement.name, pins[0] if pins else "", ""


def head_of(url: str) -> str:
    """The commit that HEAD of a git repository names. Raises `UserError`."""
    argv = ["git", "ls-remote", "--", url, "HEAD"]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode or not done.stdout:
        raise UserError(f"{url}: not a git repository with a HEAD: {done.stderr.strip()}")
    return done.stdout.split()[0]


def finished_before(log: Path | None) -> dict[str, dict[str, Any]]:
    """Results of an earlier call by "name==version"."""
    lines = read_json_lines(log) if log else ()
    return {f"{result['repo']}=={result['version']}": result for _, result in lines}


def survey(
    name: str, version: str, url: str, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One package or repository: prepared, or the reason why not."""
    began = time.monotonic()
    result: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    result |= {"repo": name, "version": version, "ready": False, "reason": ""}
    try:
        result["version"] = version or newest(name)
        source = {"pypi": {"project": name, "version": result["version"]}}
        if url:
            source = {"git": {"url": url, "commit": version}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"source": source}), encoding="utf-8")
        said = prepare(name, folder, options)
        result |= {"ready": True, "tests": said["tests"], "functions": said["functions"]}
    except subprocess.TimeoutExpired:
        result["reason"] = f"not ready after {options.timeout_s:g} s"
    except UserError as error:
        result["reason"] = str(error)[:LONGEST_REASON]
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def newest(name: str) -> str:
    """The newest version on the index, as pip says it. Raises `UserError`."""
    argv = [sys.executable, "-m", "pip", "index", "versions", "-q", "--", name]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.search(r"\(([^)]+)\)", done.stdout)
    if found is None:
        raise UserError("the index does not know it")
    return found[1]


def prepare(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `selfplay repos prepare` says. Raises `UserError` with its reason, `TimeoutExpired`."""
    argv = [sys.executable, "-m", "selfplay", "repos", "prepare", "json=true", f"repo={name}"]
    argv += [f"repos.directory={folder}", f"sandbox={options.sandbox}"]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        stdout, stderr = process.communicate(timeout=options.timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if process.returncode:
        raise UserError(reason_of(stderr))
    found: dict[str, Any] = json.loads(stdout)[0]
    return found


def reason_of(stderr: str) -> str:
    """What follows the last "selfplay: ", in one line; of a long text its end says most."""
    text = " ".join(re.split(r"^selfplay: ", stderr, flags=re.MULTILINE)[-1].split())
    head, sep, tail = text.partition(": ")
    kept = LONGEST_REASON - len(head) - len(sep) - 4
    return text if len(tail) <= kept else f"{head}{sep}... {tail[-kept:]}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        say(str(error))
        sys.exit(2)
