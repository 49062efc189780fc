"""The rules of docs/architecture.md: imports go down, heavy packages stay in their corner."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "selfplay"
MODULES = sorted(PACKAGE.rglob("*.py"))

VOCABULARY = {
    "selfplay", "agent_config", "config", "engine_config", "episodes", "errors", "files",
    "learner_config", "metrics", "run_dir", "seeds", "statistics", "types",
}  # fmt: skip
BELOW: dict[str, set[str]] = {"sandbox": VOCABULARY}
for name, further in {
    "repo": {"sandbox"},
    "bugs": {"repo"},
    "agent": {"bugs"},
    "policy": {"agent"},
    "roles": {"policy"},
    "curriculum": {"roles"},
}.items():
    BELOW[name] = BELOW[max(further)] | further
BELOW["learner"] = VOCABULARY | {"policy"}  # nothing of roles, bugs or repositories
BELOW["export"] = BELOW["policy"] | {"policy"}
BELOW["commands"] = BELOW["curriculum"] | {"curriculum", "learner", "export"}
BELOW["cli"] = BELOW["__main__"] = BELOW["commands"] | {"commands", "cli"}
FURTHER = {
    "learner/grpo.py": {"sandbox"},  # where models are kept: sandbox.host.cache_root
    "learner/served.py": {"sandbox"},
    "agent/loop.py": {"policy"},  # one layer: the protocols of policy.base
    "agent/driver.py": {"policy"},
    "agent/fenced.py": {"policy"},
}
HEAVY = {
    "docker": ("sandbox/docker.py", "sandbox/docker_container.py"),
    "vllm": ("policy/vllm.py",),
    "torch": ("learner/", "policy/"),
    "transformers": ("learner/", "policy/"),
}
MAX_FILE, MAX_FUNCTION = 400, 60


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
    allowed = {own} | BELOW.get(own, VOCABULARY) | FURTHER.get(name_of(path), set())
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
            shipped = "bugs/parsers/" in name_of(path)  # programs of their own: they print
            assert node.func.id != "print" or shipped, f"{name_of(path)}:{node.lineno}: print"


def test_the_vocabulary_names_what_is_there() -> None:
    assert {p.stem for p in PACKAGE.glob("*.py")} == VOCABULARY - {"selfplay"} | {
        "__init__", "__main__", "cli",
    }  # fmt: skip
    assert not list(PACKAGE.rglob("utils.py"))


@pytest.mark.parametrize("module", ["config", "cli", "run_dir", "bugs.corpus", "bugs.validation"])
def test_importing_the_lower_layers_is_light(module: str) -> None:
    program = (
        f"import sys, selfplay.{module}\n"
        "print([m for m in ('torch', 'vllm', 'docker', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
