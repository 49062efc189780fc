"""`selfplay report`: one HTML file that shows a run, or compares several."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from pathlib import Path

from selfplay.commands.output import print_json, say
from selfplay.config import ReportConfig
from selfplay.errors import UserError
from selfplay.files import write_atomic

log = logging.getLogger(__name__)

CONFIG, SCHEMA = "report", ReportConfig
HELP = """
keys: run=DIR or run=[DIR,DIR,...], out=FILE (default: report.html in the run's directory; of
      several runs beside the first), max_mb=5, json=true (the path and its size)
Writes a page that any browser opens without network: curves, coverage by repository and file,
the bugs as diffs with all attempts, episodes turn by turn, where higher-order bugs came from.
The run may still be going on. Needs `pip install "selfplay[report]"`.
"""


def run(config: ReportConfig) -> int:
    """Write the page."""
    names = [config.run] if isinstance(config.run, str) else list(config.run)
    if not names:
        raise UserError("run=[]: names no run; give the directory of one")
    paths = [Path(str(name)) for name in names]
    if not has_report():
        raise UserError('this needs altair; run `pip install "selfplay[report]"`')
    beside = paths[0] if len(paths) == 1 else paths[0].parent
    out = Path(config.out) if config.out is not None else beside / "report.html"
    size = write_report(paths, out, int(config.max_mb * 1e6))
    if config.json:
        print_json({"out": str(out), "bytes": size, "runs": [str(path) for path in paths]})
    else:
        say(f"{out}: {size / 1e6:.1f} MB")
    return 0


def has_report() -> bool:
    """Whether the packages that draw are installed."""
    return all(importlib.util.find_spec(name) for name in ("altair", "vl_convert"))


def write_report(runs: Sequence[Path], out: Path, max_bytes: int = 5_000_000) -> int:
    """Write the page of these run directories; its size in bytes. Raises `UserError`."""
    from selfplay.report.page import report_html
    from selfplay.report.runs import read_run

    records = [read_run(path) for path in runs]
    twice = sorted({r.name for r in records if sum(s.name == r.name for s in records) > 1})
    if twice:
        raise UserError(f"run={[str(p) for p in runs]}: several are called {', '.join(twice)}")
    data = report_html(records, max_bytes).encode("utf-8", "surrogateescape")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, data)
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from None
    return len(data)


def report_of_run(path: Path) -> None:
    """`report.html` in the directory of a run that has ended. What fails here fails no run."""
    if not has_report():
        say('a page that shows this run: pip install "selfplay[report]", selfplay report run=...')
        return
    try:
        write_report([path], path / "report.html")
    except Exception as error:
        log.warning("%s: no report.html was written: %s", path, error)
