"""No sandbox at all: a plain subprocess in a temporary copy. Only for code that you trust.

For debugging, and for machines without namespaces and Docker. The command can read and write
whatever its user can, and reach the network. `WORKDIR`, /in and /out are folders of the temporary
copy; their names are replaced in the arguments, the variables and the texts of `Job.inputs`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from selfplay.errors import SandboxError, UserError
from selfplay.sandbox.base import WORKDIR, Job, RunResult
from selfplay.sandbox.collect import collect, out_excess
from selfplay.sandbox.scratch import (
    BASE_VARIABLES,
    Scratch,
    covered_paths,
    deleted_paths,
    machine_errors,
    read_out,
    remove_tree,
)

PLACES = re.compile(rf"(?<![\w./-])({WORKDIR}|/in|/out)(?![\w.-])")


class UnsafeSandbox:
    """Runs jobs as the present user, without any protection."""

    name = "unsafe"

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = Scratch(scratch)

    def run(self, job: Job) -> RunResult:
        """Run one command on a fresh copy; processes that leave their session are not found."""
        if job.attach is not None:
            raise UserError("scaffold=agentic: needs sandbox=docker or sandbox=bubblewrap")
        with machine_errors("a command could not be run"), self._scratch.folder(job) as folder:
            tree = _copy_tree(job, folder)
            names = {WORKDIR: str(tree), "/in": str(folder / "in"), "/out": str(folder / "out")}

            def moved(text: str) -> str:
                return PLACES.sub(lambda match: names[match[1]], text)

            for name, content in job.inputs.items():
                with contextlib.suppress(UnicodeDecodeError):
                    (folder / "in" / name).write_text(moved(content.decode()))
            variables = {"PATH": job.environment.path, **job.environment.variables, **job.variables}
            variables = {name: moved(value) for name, value in variables.items()}
            argv = [moved(argument) for argument in job.argv]
            return _run(job, folder, tree, argv, {**BASE_VARIABLES, **variables})

    def close(self) -> None:
        """Remove the scratch directory. Idempotent."""
        self._scratch.close()


def _copy_tree(job: Job, folder: Path) -> Path:
    """The environment's tree with the layer laid over it."""
    tree = folder / WORKDIR.strip("/")
    try:
        shutil.copytree(job.environment.tree, tree, symlinks=True)
        for path in (*deleted_paths(job.layer), *covered_paths(job.environment.tree, job.layer)):
            place = tree / path
            if not place.parent.resolve().is_relative_to(tree.resolve()):
                continue  # behind a link that leaves the copy
            if place.is_dir() and not place.is_symlink():
                remove_tree(place)
            else:
                place.unlink(missing_ok=True)
        if job.layer:
            shutil.copytree(folder / "layer", tree, dirs_exist_ok=True)
    except OSError as error:
        raise SandboxError(f"cannot copy {job.environment.tree}: {error}") from error
    return tree


def _run(
    job: Job, folder: Path, tree: Path, argv: list[str], variables: dict[str, str]
) -> RunResult:
    read, write = os.pipe()
    try:
        with (folder / "stdin").open("rb") as stdin:
            process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=write,
                stderr=subprocess.STDOUT,
                cwd=tree,
                env=variables,
                start_new_session=True,
            )
    except FileNotFoundError as error:
        os.close(read)
        return RunResult(
            exit_code=127,
            timed_out=False,
            output=f"{error}\n".encode(),
            output_truncated=False,
            duration_s=0.0,
        )
    except OSError as error:
        os.close(read)
        raise SandboxError(f"the command could not be started: {error}") from error
    finally:
        os.close(write)
    out = folder / "out"
    pidfd = os.pidfd_open(process.pid)

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    try:
        ending = collect(read, pidfd, job.quota, kill, lambda: out_excess(out, job.quota))
    finally:
        kill()
        process.wait()
        os.close(pidfd)
        os.close(read)
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return RunResult(
        exit_code=None if ending.timed_out else code,
        timed_out=ending.timed_out,
        output=ending.annotated(),
        output_truncated=ending.truncated,
        duration_s=ending.duration_s,
        files={} if ending.stopped else read_out(out, job.quota.output),
    )
