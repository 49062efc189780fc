"""A vendored sample as a task of ProgramBench's kind: `python scripts/program_task.py DIR`.

Writes DIR/textkit: `reference` (a zip of byte code that Python runs, no source in it), docs/ and
tests.jsonl, whose outputs are those of the reference. Every third command is not shown.
"""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent.parent / "repos" / "samples" / "textkit" / "textkit"
MAIN = """
import sys
from textkit import words

command, *rest = sys.argv[1:] or ["help"]
text = sys.stdin.read()
if command == "slug":
    print(words.slug(text.strip(), int(rest[0]) if rest else None))
elif command == "snake":
    print("\\n".join(words.snake(name) for name in text.split()))
elif command == "count":
    print("\\n".join(f"{word} {n}" for word, n in words.count_words(text)))
elif command == "distance":
    print(words.distance(*rest))
else:
    print("slug [LIMIT] | snake | count | distance A B")
    sys.exit(2)
"""
USAGE = """# textkit

`program COMMAND` reads standard input and prints one result a line.

- `slug [LIMIT]`: letters and digits of the input in lower case, runs of anything else as one dash,
  none at the ends; with LIMIT cut at a dash so that it is not longer.
- `snake`: each word of the input in snake_case.
- `count`: each word in lower case without punctuation around it, and how often it came, the most
  frequent first, then by the alphabet.
- `distance A B`: letters to insert, delete or replace between two words.
- anything else: a line of usage, exit code 2.
"""
COMMANDS: list[tuple[list[str], str]] = [
    (["slug"], "Hello, World!"), (["slug", "8"], "Hello, World!"), (["slug"], " -- "),
    (["slug", "3"], "a b c d"), (["snake"], "HTTPServerName2 fooBar"), (["snake"], "A\nbC"),
    (["count"], "the cat, the dog."), (["count"], "b a b a"), (["count"], ""),
    (["distance", "kitten", "sitting"], ""), (["distance", "", "abc"], ""), (["help"], ""),
]  # fmt: skip


def main(out: Path) -> None:
    """Write the task."""
    folder = out / "textkit"
    (folder / "docs").mkdir(parents=True, exist_ok=True)
    (folder / "docs" / "usage.md").write_text(USAGE)
    write_reference(folder / "reference")
    lines = []
    for number, (argv, stdin) in enumerate(COMMANDS, start=1):
        done = subprocess.run(
            [sys.executable, str(folder / "reference"), *argv],
            input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        case = {"id": f"{argv[0]}_{number}", "argv": argv, "stdin": stdin, "stdout": done.stdout}
        lines.append({**case, "exit_code": done.returncode, "shown": number % 3 != 0})
    (folder / "tests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_reference(file: Path) -> None:
    """An executable zip of byte code."""
    with tempfile.TemporaryDirectory() as name, file.open("wb") as target:
        place = Path(name)
        (place / "main.py").write_text(MAIN)
        target.write(b"#!/usr/bin/env python\n")
        with zipfile.ZipFile(target, "w") as archive:
            sources = {"__main__": place / "main.py"}
            sources |= {f"textkit/{path.stem}": path for path in SAMPLE.glob("*.py")}
            for module, source in sorted(sources.items()):
                compiled = place / "compiled.pyc"
                py_compile.compile(str(source), str(compiled), dfile=module, doraise=True)
                archive.writestr(f"{module}.pyc", compiled.read_bytes())
    file.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
