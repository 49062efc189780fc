"""The prompts of both roles: Jinja templates, where a name that is missing is an error."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("selfplay.roles", "prompts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )


def render(name: str, **context: object) -> str:
    """Text of `<name>.j2`: runs of empty lines are one, none at the ends.

    Bytes that are not UTF-8 are shown as U+FFFD: a tokenizer takes no half characters. Raises
    `jinja2.UndefinedError` when the template uses a name that is not given.
    """
    text = _environment().get_template(f"{name}.j2").render(**context)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def bare_question(listing: str, suspects: Sequence[int]) -> str:
    """The solver's question about code of whose tests nothing is known."""
    nothing = {"issue": "", "tests": "", "messages": (), "trace": ()}
    return render("solver", listing=listing, suspects=suspects, **nothing)
