"""`selfplay <command>` as a Hydra application (`hydra.main`): sweeps, launchers, `--cfg`, `--info`.

Hydra composes `conf/<command>.yaml` and calls a `Job`, in this process or in one of a launcher.
What it does differently here than in an application of its own, `conf/application.yaml` says.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from selfplay.commands.output import say
from selfplay.commands.process import guarded, set_up
from selfplay.config import TrainConfig
from selfplay.config.loading import one_line, store_schema, typed
from selfplay.config.overrides import is_sweep, read_override
from selfplay.errors import UserError
from selfplay.files import write_atomic
from selfplay.shipped import find_shipped

_VALUES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    **dict.fromkeys(("--package", "--config-path", "--config-name", "--config-dir"), ()),
    "--experimental-rerun": (),
}
"""Hydra's options that take a value; the values that are possible, () for any."""
_SHORT = {
    "-c": "--cfg", "-i": "--info", "-p": "--package", "-cp": "--config-path", "-r": "--run",
    "-cn": "--config-name", "-cd": "--config-dir", "-m": "--multirun", "-sc": "--shell-completion",
}  # fmt: skip
_KEY = re.compile(r"[+~]*[A-Za-z_][\w./@-]*=")
_FLAGS = ("--multirun", "--run", "--resolve", "--shell-completion", "--hydra-help", "--version")


class JobFailed(Exception):
    """A job of a sweep ended with another exit code than 0; it has said why."""


@dataclass(frozen=True)
class Job:
    """A command as Hydra's task; it may travel to another process."""

    command: str
    """Name of its module."""
    codes: list[int | None] = field(default_factory=list)
    """Exit codes of the jobs of this process; None for one that has begun."""

    def __call__(self, composed: DictConfig) -> int:
        set_up()
        self.codes.append(None)
        module, mode = _module(self.command), HydraConfig.get()
        sweep = mode.mode == RunMode.MULTIRUN
        if sweep:
            say(f"job {mode.job.num}: {' '.join(mode.overrides.task)}")
        code = guarded(lambda: module.run(typed(module.SCHEMA, module.CONFIG, composed)))
        if code and module.CONFIG == "train":
            _remove_if_empty(Path(mode.runtime.output_dir))
        if sweep and code:
            raise JobFailed(code)
        self.codes[-1] = code
        return code


def launch(command: str, words: Sequence[str]) -> int:
    """Run a command with the words that follow its name; the exit code.

    Of a sweep: that of the first job that did not end with 0; the others are played all the same.
    Raises `UserError` for what Hydra refuses.
    """
    module = _module(command)
    options, overrides = _parted(words)
    overrides = _named(overrides, getattr(module, "POSITIONAL", ()))
    sweep = "--multirun" in options
    if sweep and "RANK" in os.environ:
        raise UserError("--multirun starts its jobs itself: leave torchrun out")
    overrides = [read_override(module.SCHEMA, word, sweep=sweep) for word in overrides]
    if sweep:
        overrides.insert(0, _not_in_names(overrides))
    store_schema(module.SCHEMA, module.CONFIG)
    job = Job(command)
    main = hydra.main(str(find_shipped("conf").resolve()), module.CONFIG, version_base="1.3")(job)
    try:
        line = [f"hydra.job.name={module.CONFIG}", *overrides, *options]
        with _unread_helps(), _command_line(line):
            main()
    except JobFailed as failed:
        return int(failed.args[0])
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if job.codes[-1:] == [None]:  # raised by the command, not by Hydra around it
            raise
        raise UserError(_said(module.CONFIG, error)) from None
    return (job.codes or [0])[-1] or 0


def in_output_dir(config: TrainConfig) -> TrainConfig:
    """The run, in the folder that Hydra made for this job: `hydra.run.dir`, or one of a sweep."""
    if config.dry_run or not HydraConfig.initialized():
        return config
    folder = Path(HydraConfig.get().runtime.output_dir)
    runs_dir = Path(config.runs_dir)
    if folder.parent != runs_dir.absolute():
        runs_dir = folder.parent
    return replace(config, runs_dir=str(runs_dir), name=folder.name)


def keep_hydra_files(folder: Path) -> None:
    """`.hydra/`, as Hydra writes it, of a run that was accepted."""
    if not HydraConfig.initialized():
        return
    (folder / ".hydra").mkdir(exist_ok=True)
    mode = HydraConfig.get()
    files: dict[str, Any] = {"hydra": {"hydra": mode}, "overrides": mode.overrides.task}
    for name, part in files.items():
        write_atomic(folder / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(part).encode())


def task_words() -> list[str]:
    """The overrides of this job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _module(command: str) -> Any:
    return importlib.import_module(f"selfplay.commands.{command}")


def _parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(options under their long names with their values, overrides), whatever their order."""
    options: list[str] = []
    overrides: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name not in _VALUES and name not in _FLAGS:
            raise UserError(f"unknown option {word}; there are {', '.join([*_FLAGS, *_VALUES])}")
        options.append(name)
        if name == "--info" and not equals and (not rest or rest[0] not in _VALUES[name]):
            continue
        if name in _VALUES:
            if not equals and not rest:
                raise UserError(f"{word}: needs a value")
            value = value if equals else rest.pop(0)
            if _VALUES[name] and value not in _VALUES[name]:
                raise UserError(f"{name} {value}: must be {' or '.join(_VALUES[name])}")
            options.append(value)
    return options, overrides


def _said(command: str, error: Exception) -> str:
    """What Hydra, or the file system where it makes a run's folder, has to say."""
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        why = f"cannot be written ({error.strerror})"
        return f"{error.filename}: {why}; choose another runs_dir=... or hydra.run.dir=..."
    return f"{command}: {one_line(error)}"


def _named(words: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Words without `=` as values of the keys that a command takes by their places."""
    left = [key for key in keys if not any(word.startswith(f"{key}=") for word in words)]
    return [f"{left.pop(0)}={word}" if left and not _KEY.match(word) else word for word in words]


def _not_in_names(overrides: Sequence[str]) -> str:
    """The word that keeps what is not swept out of the names of a sweep's runs."""
    swept = {word.partition("=")[0] for word in overrides if is_sweep(word)}
    others = {word.partition("=")[0] for word in overrides} - swept
    keys = ",".join(sorted({"name", *others}))
    return f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"


@contextmanager
def _unread_helps() -> Iterator[None]:
    """Python 3.14 reads the help text of an option when that is added. Hydra has one that is none
    before it is shown (facebookresearch/hydra#3121): no version of it starts there by itself."""
    check = getattr(argparse.ArgumentParser, "_check_help", None)
    if check is None:
        yield
        return
    argparse.ArgumentParser._check_help = lambda self, action: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        argparse.ArgumentParser._check_help = check  # type: ignore[attr-defined]


@contextmanager
def _command_line(words: Sequence[str]) -> Iterator[None]:
    """Hydra reads `sys.argv`; it raises what goes wrong instead of printing it."""
    former, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [former[0], *words]
    if "--info" in words:  # Hydra prints it through a logger of its own
        logging.getLogger().handlers.clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = former
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def _folder(runs_dir: str, name: str, dry_run: bool) -> str:
    """Where a run is written; Hydra makes the folder, and a dry run writes nothing."""
    return tempfile.gettempdir() if dry_run else str(Path(runs_dir) / name)


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder that Hydra made for a run that was refused before it wrote anything."""
    with contextlib.suppress(OSError):  # not empty, or of somebody else
        folder.rmdir()
        folder.parent.rmdir()


def _sweep_name(name: str, words: str) -> str:
    """Name of one run of a sweep: `samples-seed=1`."""
    text = re.sub(r"[^\w.,=+@-]+", "_", f"{name}-{words}".replace("'", "").rstrip("-"))
    if len(text) <= 120:
        return text
    return f"{text[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


OmegaConf.register_new_resolver("selfplay.folder", _folder, replace=True)
OmegaConf.register_new_resolver("selfplay.sweep_name", _sweep_name, replace=True)
