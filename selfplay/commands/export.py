"""`selfplay export`: the corpus of a run as a SWE-bench suite or as SFT traces, or its weights."""

from __future__ import annotations

from pathlib import Path

from selfplay.commands.compose import repos_dir
from selfplay.commands.output import print_json, say
from selfplay.config import ExportConfig, TrainConfig, read_config
from selfplay.errors import UserError
from selfplay.export.swebench import export_swebench
from selfplay.export.traces import export_traces

CONFIG, SCHEMA = "export", ExportConfig
HELP = """
keys: run=DIR (a run directory) format=swebench|sft|hf out=DIR, step=N (hf), json=true
swebench  out/suite.jsonl (SWE-bench's field names) and out/artifacts/<bug id>/
sft       out/traces.jsonl: solved and valid episodes as chat messages, with token ids
hf        out/ as a model directory that transformers and vLLM load: the weights of the newest
          checkpoint or that of step=N, an adapter merged; on any number of ranks, also in mid-run
`selfplay corpus verify out=DIR` replays a swebench export.
"""


def run(config: ExportConfig) -> int:
    """Export; 0 when something was written, 1 when the corpus is empty."""
    run_dir, out = Path(config.run), Path(config.out)
    if not (run_dir / "corpus.sqlite").is_file():
        raise UserError(f"run={run_dir}: no corpus.sqlite there; name a directory under runs/")
    if config.format == "swebench":
        number = export_swebench(run_dir, out, repos_dir(config.repos))
    elif config.format == "sft":
        number = export_traces(run_dir, out)
    elif config.format == "hf":
        number = export_weights(run_dir, config.step, out)
    elif config.format in ("swesmith", "harbor"):
        raise UserError(
            f"format={config.format}: arrives with a later version; use swebench or sft"
        )
    else:
        raise UserError(f"format={config.format!r} is unknown; one of: swebench, sft, hf")
    if config.json:
        print_json({"format": config.format, "out": str(out), "num_records": number})
    else:
        say(f"{number} records written to {out}")
    return 0 if number else 1


def export_weights(run_dir: Path, step: int | None, out: Path) -> int:
    """The weights of one checkpoint as a model directory; 1, as one thing was written."""
    from selfplay.learner import checkpoint
    from selfplay.learner.grpo import export_checkpoint

    folder = run_dir / "checkpoints"
    path = checkpoint.latest(folder) if step is None else folder / f"step_{step}"
    if path is None or not path.is_dir():
        there = ", ".join(sorted(found.name for found in folder.glob("step_*"))) or "none"
        raise UserError(f"run={run_dir}: no checkpoint of step={step}; there are: {there}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out}: is there already; name a new directory")
    config = read_config(TrainConfig, run_dir / "config.yaml")
    export_checkpoint(config.policy, config.learner, config.seed, path, out)
    return 1
