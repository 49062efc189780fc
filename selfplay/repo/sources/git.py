"""Git with a configuration of our own, whatever the user's says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import git as gitpython

from selfplay.errors import RepoError

CONFIG = {
    "safe.directory": "*",  # a work tree may belong to another user
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "commit.gpgSign": "false",
    "protocol.ext.allow": "never",
}
PERSON = {"NAME": "selfplay", "EMAIL": "selfplay@localhost", "DATE": "2000-01-01T00:00:00Z"}
KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_SSL_CAINFO", "GIT_SSL_NO_VERIFY")


def git(
    *argv: str,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> str:
    """Text (surrogateescape, lines ended by \\n) that a git command prints; see `git_bytes`."""
    raw = git_bytes(*argv, cwd=cwd, variables=variables, config=config)
    text = raw.decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def git_bytes(
    *argv: str,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    config: Path | None = None,
    stdin: bytes = b"",
) -> bytes:
    """Output of a git command as it is. Raises `RepoError` with git's own reason.

    Nothing is taken from the environment's GIT_* (we may run inside a hook) but how to reach
    servers. `config` is a file read as the global configuration, by git's own children too.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in KEPT
    }
    environment |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(config or os.devnull),
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_{part}": value for part, value in PERSON.items()}
    options = [word for name, value in CONFIG.items() for word in ("-c", f"{name}={value}")]
    try:
        done = subprocess.run(
            ["git", *options, *argv],
            cwd=cwd,
            env={**environment, **(variables or {})},
            capture_output=True,
            input=stdin,
        )
    except FileNotFoundError as error:
        raise RepoError(f"git {argv[0]}: {error.filename}: not found; is git installed?") from error
    if done.returncode:
        raise RepoError(f"git {argv[0]} failed: {_reason(done.stderr.decode(errors='replace'))}")
    return done.stdout


@contextmanager
def open_repository(folder: Path) -> Iterator[gitpython.Repo]:
    """A bare repository as GitPython sees it, under the same configuration. `RepoError` for faults.

    For commits and what they say; what may not be UTF-8 (paths, contents) is read by `git_bytes`.
    """
    try:
        with gitpython.Repo(folder, odbt=gitpython.GitCmdObjectDB) as repository:
            repository.git.update_environment(
                GIT_DIR=str(folder), GIT_CONFIG_NOSYSTEM="1", GIT_CONFIG_GLOBAL=os.devnull
            )
            repository.git.set_persistent_git_options(c=[f"{k}={v}" for k, v in CONFIG.items()])
            yield repository
    except (gitpython.exc.GitError, ValueError) as error:
        raise RepoError(f"{folder}: {_reason(str(error))}") from error


def described_version(history: Path) -> str:
    """The version that the nearest tag names, as build backends would: "1.4.2", some commits after
    it "1.4.2.post3"; "0.0.1" where no tag names one."""
    try:
        words = git("describe", "--tags", "--long", "--match=*[0-9]*", "HEAD", cwd=history)
    except RepoError:
        return "0.0.1"
    tag, distance, _ = words.strip().rsplit("-", 2)
    found = re.search(r"\d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)?$", tag.replace("_", "."))
    if found is None:
        return "0.0.1"
    return found[0] if distance == "0" else f"{found[0].partition('.post')[0]}.post{distance}"


def write_config(path: Path) -> Path:
    """`CONFIG` as a file, for commands whose children do not see the command line's."""
    lines = []
    for name, value in CONFIG.items():
        section, _, key = name.rpartition(".")
        head, _, rest = section.partition(".")
        lines.append(f'[{head} "{rest}"]' if rest else f"[{head}]")
        lines.append(f'\t{key} = "{value}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (marked or lines or ["no message"])[0]
