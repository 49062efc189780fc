"""The dataset card: what is in the table, where it comes from, under which licences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import yaml

from selfplay import __version__

PURPOSE = {
    "suite.jsonl": "Bugs in Python and Perl repositories with SWE-bench's field names: `patch` is "
    "the repair, `test_patch` the tests that specify it.",
    "tasks.jsonl": "Bugs with SWE-smith's field names: `patch` is the *bug*.",
    "traces.jsonl": "Solved and valid episodes as chat messages, with token ids and loss mask.",
    "preferences.jsonl": "A resolved and a failed attempt on one bug, from the same prompt.",
}
CARD = """\
---
{head}---
# {title}

{purpose} Written by `selfplay export` {version}.

```python
from datasets import load_dataset

rows = load_dataset("PATH_OF_THIS_FOLDER", split="train")
```
Objects inside a row (`environment`, `limits`, `meta`) are JSON text.

## Where it comes from
The code belongs to its authors, under the licences below.

| repository | licence | source |
|---|---|---|
{sources}

## Fields
| field | type |
|---|---|
{fields}

{number} rows; SHA-256 of `data/train-00000-of-00001.parquet`: `{digest}`.
"""


def dataset_card(
    lines: str,
    content: bytes,
    number: int,
    features: Mapping[str, str],
    environments: Mapping[str, Mapping[str, Any]],
) -> str:
    """README.md of the folder; its head says to the Hub and to `datasets` which files are rows.

    The configuration's name tells exports apart: `datasets` keeps what it read by names alone.
    """
    digest = hashlib.sha256(content).hexdigest()
    name = f"{lines.removesuffix('.jsonl')}-{digest[:8]}"
    licences = {str(e.get("license") or "unknown") for e in environments.values()}
    head = {
        "license": min(licences).lower() if licences and len(licences) == 1 else "other",
        "tags": ["code", "software-engineering", "selfplay"],
        "size_categories": [_size(number)],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": "data/*.parquet"}]}
        ],
    }
    sources = [
        f"| {name} | {told.get('license') or 'unknown'} | `{json.dumps(told.get('source'))}` |"
        for name, told in sorted(environments.items())
    ]
    return CARD.format(
        head=yaml.safe_dump(head, sort_keys=False),
        title=f"selfplay: {lines.removesuffix('.jsonl')}",
        purpose=PURPOSE[lines],
        version=__version__,
        sources="\n".join(sources),
        fields="\n".join(f"| `{name}` | {kind} |" for name, kind in features.items()),
        number=number,
        digest=digest,
    )


def _size(number: int) -> str:
    """The Hub's words for a number of rows."""
    for limit, name in ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if number < limit:
            return name
    return "100K<n<1M"
