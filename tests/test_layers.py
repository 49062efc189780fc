"""The rules of docs/architecture.md: imports go down, heavy packages stay in their corner."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "selfplay"
MODULES = sorted(PACKAGE.rglob("*.py"))

VOCABULARY = {
    "selfplay", "cache", "chat", "config", "errors", "files", "learning",
    "placement", "records", "run_dir", "sampling", "seeds", "shipped", "statistics", "thinking",
    "types",
}  # fmt: skip
LAYERS: tuple[tuple[str, set[str]], ...] = (  # each room and the rooms that it may use
    ("sandbox", set()),
    ("repo", {"sandbox"}),
    ("bugs", {"repo", "sandbox"}),
    ("corpus", {"bugs", "repo"}),
    ("bug_sources", {"bugs", "repo", "sandbox"}),
    ("traces", {"bugs", "repo", "sandbox"}),
    ("modeling", set()),
    ("agent", {"sandbox"}),  # tools and chats alone
    ("compact", {"bugs", "repo", "sandbox"}),
    ("policy", {"agent", "modeling"}),
    ("scripted", {"agent", "compact", "bug_sources", "bugs", "repo"}),
    ("roles", {"agent", "compact", "bug_sources", "bugs", "repo", "sandbox"}),
    (
        "curriculum",
        {
            "roles",
            "scripted",
            "agent",
            "compact",
            "bug_sources",
            "corpus",
            "bugs",
            "repo",
            "sandbox",
        },
    ),
    ("learner", {"modeling", "policy"}),  # nothing of roles, bugs or repositories
    ("warmstart", {"traces", "roles", "compact", "bug_sources", "bugs", "repo", "sandbox"}),
    ("report", {"corpus", "bugs"}),  # what lies on disk, for people
    ("serving", {"roles", "policy", "agent", "compact", "bugs", "repo", "sandbox"}),
    ("export", {"scripted", "policy", "modeling", "corpus", "bugs", "repo", "sandbox"}),
)
BELOW = dict(LAYERS)
BELOW["commands"] = set(BELOW)
BELOW["cli"] = BELOW["__main__"] = {"commands", "cli"}
HEAVY = {
    "docker": ("sandbox/docker/",),
    "ray": ("sandbox/ray/",),
    "vllm": ("policy/vllm/",),
    "torch": ("learner/", "modeling/", "policy/"),
    "transformers": ("learner/", "modeling/", "policy/"),
}
MAX_FILE, MAX_FUNCTION, MAX_MODULES = 400, 60, 12


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = {own} | VOCABULARY | BELOW.get(own, set())
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "selfplay":
            part = rest.partition(".")[0]
            part = part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists() else top
            assert part in allowed, f"{name_of(path)} imports {name}"
        assert top not in HEAVY or name_of(path).startswith(HEAVY[top]), f"{name_of(path)}: {top}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE, f"{name_of(path)}: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{name_of(path)}: {node.name} has {length} lines"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            shipped = "test_runs/parsers/" in name_of(path)  # programs of their own: they print
            assert node.func.id != "print" or shipped, f"{name_of(path)}:{node.lineno}: print"


def test_no_folder_holds_too_many_modules() -> None:
    counts = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    full = {name_of(folder): n for folder, n in counts.items() if n > MAX_MODULES}
    full.pop(".", None)  # the vocabulary
    full.pop("commands", None)  # one module a command, and what they share
    assert not full, f"which ideas are in there? {full}"


def test_the_layers_are_an_order() -> None:
    seen: set[str] = set()
    for room, below in LAYERS:
        assert below <= seen, f"{room} uses {below - seen}, which stand above it"
        seen.add(room)


def test_the_vocabulary_names_what_is_there() -> None:
    rooms = {"selfplay", "config", "run_dir"}  # the package, and what fills a room of its own
    assert {p.stem for p in PACKAGE.glob("*.py")} == VOCABULARY - rooms | {
        "__init__", "__main__", "cli",
    }  # fmt: skip
    assert not list(PACKAGE.rglob("utils.py"))


def test_the_tree_in_the_readme_is_this_one() -> None:
    """Two modules of its list had become a part of `run_dir/`, and five were missing."""
    text = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    tree = text.split("\nselfplay/\n")[1].split("\ndocs/")[0]
    listed = " ".join(re.split(" {2,}", line.strip())[0] for line in tree.splitlines())
    vocabulary = listed.partition(" config/ ")[0]
    assert {name.strip("/") for name in vocabulary.split()} == VOCABULARY - {"selfplay", "config"}
    folders = {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert set(re.findall(r"([a-z_]+)/", tree)) <= folders
    assert set(BELOW) - {"cli", "__main__"} <= set(re.findall(r"([a-z_]+)/", tree))


@pytest.mark.parametrize(
    "module", ["config", "cli", "run_dir", "corpus.corpus", "bugs.validation.validate"]
)
def test_importing_the_lower_layers_is_light(module: str) -> None:
    program = (
        f"import sys, selfplay.{module}\n"
        "print([m for m in ('torch', 'vllm', 'docker', 'ray', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
