"""One HTML file: the page, its script, Vega's script, and the data, compressed, in pieces.

The browser unpacks a piece when somebody opens a bug or an episode of it, so that the page is there
at once whatever it holds. Pieces beyond the size that was asked for are left out, the oldest first,
and the page says so. Everything that a model or a repository wrote is set as text, never as HTML.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
import vl_convert

from selfplay.files import finite
from selfplay.report.content import cards_of, index_of, pieces_of
from selfplay.report.runs import RunRecord

_SCRIPT = "window.vegaEmbed = vegaEmbed;"
_REST = 60_000
"""Bytes of the page beside Vega and the data, at the most."""


def report_html(runs: Sequence[RunRecord], max_bytes: int) -> str:
    """The page of these runs, of at most `max_bytes` where the part that is always there allows."""
    script = vl_convert.javascript_bundle(_SCRIPT).replace("</script", r"<\/script")
    index = _pack(index_of(runs))
    room = max_bytes - len(script) - len(index) - _REST
    pieces: list[dict[str, str]] = []
    left_out = 0
    for piece in pieces_of(runs):
        packed = _pack(piece)
        if len(packed) > room:
            left_out += len(piece)
            continue
        room -= len(packed)
        pieces.append({"ids": " ".join(piece), "packed": packed})
    shown = [{"name": run.name, "cards": cards_of(run)} for run in runs]
    return _template().render(
        runs=shown,
        index=index,
        pieces=pieces,
        left_out=left_out,
        vega=script,
        style=_text("page.css"),
        code=_text("page.js"),
    )


def _pack(document: Any) -> str:
    """JSON, gzip, base64. The time stamp is left out, so that equal runs make equal pages."""
    text = json.dumps(finite(document), separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_text("page.html.j2"))


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
