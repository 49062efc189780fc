"""Hydra configuration made into typed dataclasses, once, at the entry point.

Every command composes `conf/<command>.yaml` with the overrides of the command line and merges the
result into its dataclass strictly, so that a misspelt key is an error. Nothing past the entry
point sees a DictConfig.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, ValueNode
from omegaconf.errors import OmegaConfBaseException

from selfplay.config.overrides import read_override
from selfplay.errors import UserError
from selfplay.files import at_home
from selfplay.shipped import find_shipped

T = TypeVar("T")

GONE = ("learner.save_every", "injector.temperature", "curriculum.adaptive_kinds")
"""Keys of earlier versions, which stored configurations may hold: the first decided nothing, the
second was null unless set, the third was on (now `curriculum.sampler`)."""


def load_config(schema: type[T], name: str, overrides: Sequence[str]) -> T:
    """Compose `conf/<name>.yaml` with overrides into `schema`. Raises `UserError` with one line."""
    try:
        store_schema(schema, name)
        with initialize_config_dir(str(find_shipped("conf").resolve()), version_base="1.3"):
            words = [read_override(schema, word) for word in overrides]
            composed = compose(config_name=name, overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{name}: {one_line(error)}") from None
    return typed(schema, name, composed)


def store_schema(schema: type[Any], name: str) -> None:
    """Make a command's dataclass the structured config `<name>_schema`."""
    ConfigStore.instance().store(name=f"{name}_schema", node=_writable(schema))


def typed(schema: type[T], name: str, composed: DictConfig) -> T:
    """The dataclass of what Hydra composed. Raises `UserError` where a value lacks or misfits."""
    try:
        if OmegaConf.get_type(composed) is not schema:  # a primary config without the schema
            merged = OmegaConf.merge(_writable(schema), composed)
            assert isinstance(merged, DictConfig)
            composed = merged
        for node in _leaves(composed):
            value = node._value()
            if isinstance(value, str) and value.startswith("~") and "/" in value:
                node._set_value(at_home(value))  # no shell does, within a list or quotes
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise UserError(f"{name}: missing {', '.join(f'{key}=...' for key in missing)}")
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        raise UserError(f"{name}: {one_line(error)}") from None
    assert isinstance(config, schema)
    return config


def one_line(error: Exception) -> str:
    """What Hydra says, and why, as one line; of a long list of choices all."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Config search path:" in lines:
        lines = lines[: lines.index("Config search path:")]
    listed = [i for i, line in enumerate(lines) if line.startswith("Available options")]
    for i in listed:
        return "; ".join([*lines[:i], f"{lines[i]} {', '.join(lines[i + 1 :])}"])
    causes = str(error.__cause__ or "").splitlines()[:1]
    return "; ".join([*lines[:2], *(cause for cause in causes if cause not in lines)])


def read_config(schema: type[T], file: Path) -> T:
    """What `to_yaml` has written. Raises `UserError` where it does not fit this version."""
    try:
        stored = OmegaConf.load(file)
        for key in GONE:
            _forget(stored, key)
        config = OmegaConf.to_object(OmegaConf.merge(_writable(schema), stored))
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: {str(error).splitlines()[0]}") from None
    assert isinstance(config, schema)
    return config


def to_yaml(config: object) -> str:
    """The resolved configuration as YAML, for `config.yaml` of the run directory."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _leaves(config: DictConfig | ListConfig) -> Iterator[ValueNode]:
    """The values of a configuration that are no mappings or lists."""
    nodes = config.__dict__["_content"]
    for node in nodes.values() if isinstance(nodes, dict) else nodes or ():
        if isinstance(node, ValueNode):
            yield node
        elif isinstance(node, DictConfig | ListConfig):
            yield from _leaves(node)


def _writable(schema: type[Any]) -> DictConfig:
    """The schema with its defaults, to be merged into; frozen classes would refuse."""
    node: DictConfig = OmegaConf.structured(schema)
    nodes = [node]
    for part in nodes:
        OmegaConf.set_readonly(part, None)
        children = (part._get_node(key) for key in part)
        nodes += [child for child in children if isinstance(child, DictConfig)]
    return node


def _forget(config: Any, key: str) -> None:
    """Drop a dotted key, where it is there."""
    parent, _, last = key.rpartition(".")
    part = OmegaConf.select(config, parent) if parent else config
    if isinstance(part, DictConfig):
        part.pop(last, None)
