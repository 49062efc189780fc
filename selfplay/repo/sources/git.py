"""Git with a configuration of our own, whatever the user's says."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import git as gitpython

from selfplay.errors import InfrastructureError, RepoError

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
ATTRIBUTES = "* -ident -filter\n"
"""Trees hold what a checkout on Linux would (line ends, encodings), but for keywords: the expansion
of `$Id$` is the hash of the original file, no two states have the same, and git itself takes it
back before it applies a patch. Filters are programs of the user's machine."""
_ALTERING = re.compile(rb"eol\s*=\s*crlf|working-tree-encoding\s*=")
WAYS = re.compile(r"(http|https|url|credential)\.|core\.(gitproxy|askpass)$")
"""Settings that say how servers are reached, and nothing of what is taken from them."""
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
    if done.returncode < 0:
        raise InfrastructureError(f"git {argv[0]} was killed by signal {-done.returncode}")
    if done.returncode:
        raise RepoError(f"git {argv[0]} failed: {_reason(done.stderr.decode(errors='replace'))}")
    return done.stdout


def check_out(history: Path, commit: str, tree: Path, index: Path) -> None:
    """A commit's files into the empty folder `tree`; `index` is a scratch file. Checked out, not
    archived: `git archive` would leave out what attributes keep from releases, tests most of all.
    """
    keep_attributes(history)
    where = (f"--git-dir={history}", f"--work-tree={tree}")
    variables = {"GIT_INDEX_FILE": str(index)}
    git(*where, "read-tree", commit, variables=variables)
    git(*where, "checkout-index", "-a", "-q", variables=variables)
    index.unlink()


def keep_attributes(history: Path) -> None:
    """Make a bare repository check files out as `ATTRIBUTES` says."""
    attributes = history / "info" / "attributes"
    if not attributes.is_file() or attributes.read_text("utf-8", "replace") != ATTRIBUTES:
        attributes.parent.mkdir(exist_ok=True)
        scratch = attributes.with_name(f"attributes.{os.getpid()}-{threading.get_ident()}.tmp")
        scratch.write_text(ATTRIBUTES)
        scratch.replace(attributes)


@lru_cache
def alters_files(history: Path) -> bool:
    """Whether attributes of any commit make a checkout hold other bytes than were committed."""
    where = ("--", ":(glob)**/.gitattributes")
    listed = git("rev-list", "--objects", "HEAD", *where, cwd=history).splitlines()
    blobs = [line.split(" ")[0] for line in listed if line.endswith(".gitattributes")]
    return any(
        _ALTERING.search(git_bytes("cat-file", "blob", blob, cwd=history)) for blob in set(blobs)
    )


def checked_out(history: Path, commit: str, blobs: Mapping[str, str]) -> dict[str, bytes]:
    """{path: what a checkout holds} of blobs at their paths, under the attributes of a commit.

    A path that cannot lie beside another one is left out.
    """
    keep_attributes(history)
    names = {os.fsencode(path): blob for path, blob in blobs.items()}
    listed = b"".join(b"100644 %s\t%s\0" % (blob.encode(), name) for name, blob in names.items())
    with tempfile.TemporaryDirectory(prefix="selfplay-checkout-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        where = (f"--git-dir={history}", f"--work-tree={tree}")
        variables = {"GIT_INDEX_FILE": f"{folder}/index"}
        git(*where, "read-tree", commit, variables=variables)
        add = ("update-index", "--add", "--replace", "-z", "--index-info")
        git_bytes(*where, *add, variables=variables, stdin=listed)
        write = ("checkout-index", "-q", "-z", "--stdin")
        git_bytes(*where, *write, variables=variables, stdin=b"\0".join(names))
        files = {path: tree / path for path in blobs}
        return {path: file.read_bytes() for path, file in files.items() if file.is_file()}


@contextmanager
def open_repository(folder: Path) -> Iterator[gitpython.Repo]:
    """A bare repository as GitPython sees it, under the same configuration. `RepoError` for faults.

    Its commands are asked for what commits say (its objects know no ids of SHA-256); what may not
    be UTF-8 (paths, contents) is read by `git_bytes`.
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
    it "1.4.2.post3", or "1.5.dev3" where the tag is "1.5.dev0"; "0.0.1" where no tag names one."""
    try:
        words = git("describe", "--tags", "--long", "--match=*[0-9]*", "HEAD", cwd=history)
    except RepoError:
        return "0.0.1"
    tag, distance, _ = words.strip().rsplit("-", 2)
    pattern = r"(\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?)((?:\.post\d+)?)(?:\.dev(\d+))?$"
    found = re.search(pattern, tag.replace("_", "."))
    if found is None:
        return "0.0.1"
    version, post, dev = found.groups()
    if dev is not None:
        return f"{version}{post}.dev{int(dev) + int(distance)}"
    return f"{version}{post}" if distance == "0" else f"{version}.post{distance}"


def write_config(path: Path) -> Path:
    """`CONFIG` as a file, for commands whose children do not see the command line's, and how the
    user's own git reaches servers: proxies, certificates, passwords, other addresses."""
    lines = []
    for name, value in CONFIG.items():
        section, _, key = name.rpartition(".")
        head, _, rest = section.partition(".")
        lines.append(f'[{head} "{rest}"]' if rest else f"[{head}]")
        lines.append(f'\t{key} = "{value}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name, value in _ways_to_servers():
        git("config", "--file", str(path), "--add", name, value)
    return path


def _ways_to_servers() -> Iterator[tuple[str, str]]:
    """(key, value) of the user's and the machine's settings of `WAYS`."""
    for where in ("--system", "--global"):
        done = subprocess.run(
            ["git", "config", where, "--includes", "--list", "-z"], capture_output=True
        )
        for entry in done.stdout.decode("utf-8", "surrogateescape").split("\0"):
            name, has_value, value = entry.partition("\n")
            if WAYS.match(name):
                yield name, value if has_value else "true"


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (marked or lines or ["no message"])[0]
