"""What a piece of Python does that a bug, a weakened test or a fix has no business doing.

They are counted on the syntax tree; documentation is no behaviour.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

from selfplay.bugs.code_signals.findings import Signals
from selfplay.repo.languages.python_source import KEPT, parse

MODULES: dict[str, str] = {
    **dict.fromkeys(("random", "secrets", "uuid"), "randomness"),
    **dict.fromkeys(("time", "sched", "timeit"), "clock"),
    **dict.fromkeys(
        (
            *("socket", "ssl", "urllib", "http", "ftplib", "smtplib", "asyncore", "socketserver"),
            *("requests", "httpx", "aiohttp", "urllib3", "paramiko"),
        ),
        "network",
    ),
    **dict.fromkeys(("subprocess", "multiprocessing", "pty", "signal"), "process"),
    **dict.fromkeys(("git", "dulwich", "pygit2"), "git"),
    **dict.fromkeys(("linecache", "tokenize", "dis"), "source_reading"),
    **dict.fromkeys(
        ("base64", "codecs", "zlib", "marshal", "pickle", "binascii", "importlib", "imp", "runpy"),
        "dynamic",
    ),
    **dict.fromkeys(
        ("pytest", "_pytest", "pluggy", "unittest", "ctypes", "atexit", "faulthandler", "builtins"),
        "runner",
    ),
}
ATTRIBUTES: dict[str, str] = {
    **dict.fromkeys(
        (
            *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
            *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
            "datetime.date.today",
        ),
        "clock",
    ),
    **dict.fromkeys(("os.urandom", "numpy.random", "np.random"), "randomness"),
    **dict.fromkeys(("os.system", "os.popen", "os.fork", "os.execv", "os.spawnv"), "process"),
    **dict.fromkeys(
        ("inspect.getsource", "inspect.getsourcelines", "inspect.getsourcefile", "inspect.getfile"),
        "source_reading",
    ),
    **dict.fromkeys(
        (
            *(
                "os._exit",
                "os.abort",
                "os.kill",
                "os.dup2",
                "os.write",
                "os.fdopen",
                "os.closerange",
            ),
            *("sys.modules", "sys._getframe", "sys.settrace", "sys.setprofile", "sys.meta_path"),
            *("sys.__stdout__", "sys.__stderr__", "sys.path_hooks", "sys.excepthook", "sys.argv"),
            *("sys.unraisablehook", "sys.monitoring", "sys.addaudithook", "sys._current_frames"),
            *("gc.get_objects", "gc.get_referrers", "gc.get_referents", "threading.settrace"),
            *("inspect.stack", "inspect.currentframe", "inspect.getouterframes", "inspect.trace"),
        ),
        "runner",
    ),
}
NAMES: dict[str, str] = {
    **dict.fromkeys(
        (
            *("tb_frame", "f_back", "f_locals", "f_globals", "f_builtins"),
            *("gi_frame", "cr_frame", "ag_frame", "__globals__", "__builtins__", "__subclasses__"),
        ),
        "runner",
    ),
    **dict.fromkeys(
        ("__file__", "__loader__", "__code__", "co_code", "co_consts", "co_filename"),
        "source_reading",
    ),
}
"""What gives itself away by its own name, whatever it belongs to."""
COMPARISONS = ("__eq__", "__ne__", "__contains__", "__instancecheck__")
"""How an object says that it is what a test expects."""
CALLS = {"exec": "dynamic", "eval": "dynamic", "compile": "dynamic", "__import__": "dynamic"}
DEVICES = ("/dev/random", "/dev/urandom")
STRINGS = ("pytest", "unittest", "PYTEST_", "/proc/", "JUNIT_XML", "/out/", "/in/")
_SECRET_NAMES = {name.partition(".")[2] for name, kind in ATTRIBUTES.items() if kind == "runner"}


def python_signals(source: str) -> Signals:
    """{(category, token): count} of one file; empty where it does not parse."""
    return Signals(_signals(source))


@lru_cache(maxsize=KEPT)
def _signals(source: str) -> Signals:
    module = parse(source)
    found = Signals()
    if module is None:
        return found
    nodes = list(ast.walk(module))
    aliases = _aliases(nodes)
    documentation = _docstrings(nodes)
    for node in nodes:
        for category, token in _node_signals(node, aliases):
            if id(node) not in documentation:
                found[category, token] += 1
    return found


def _node_signals(node: ast.AST, aliases: dict[str, str]) -> Iterable[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _module(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield from _module(node.module)
        for alias in node.names:
            yield from _attribute(f"{node.module}.{alias.name}")
    elif isinstance(node, ast.Attribute):
        yield from _attribute(_dotted(node, aliases))
        yield from _name(node.attr, node.ctx)
    elif isinstance(node, ast.Name):
        yield from _name(node.id, node.ctx)
    elif isinstance(node, ast.FunctionDef):
        yield from _name(node.name, ast.Store())
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in CALLS:
            yield CALLS[node.func.id], node.func.id
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
        for word in STRINGS:
            if word in text:
                yield "runner", repr(word)
        yield from _name(text, ast.Store())
        if text in DEVICES:
            yield "randomness", repr(text)
        if text in _SECRET_NAMES and text.startswith(("_", "get", "set")):
            yield "runner", repr(text)
        if text.startswith("git ") or text == "git" or ".git/" in text:
            yield "git", repr(text[:20])
        if text.endswith(".py"):
            yield "source_reading", repr(text[:40])


def _module(name: str) -> Iterable[tuple[str, str]]:
    root = name.partition(".")[0]
    if root in MODULES:
        yield MODULES[root], f"import {root}"


def _attribute(name: str) -> Iterable[tuple[str, str]]:
    if name in ATTRIBUTES:
        yield ATTRIBUTES[name], name


def _name(name: str, context: ast.expr_context) -> Iterable[tuple[str, str]]:
    """A name that is read or, for a comparison, given a meaning."""
    if name in NAMES:
        yield NAMES[name], name
    if name in COMPARISONS and isinstance(context, ast.Store):
        yield "equality", name


def _dotted(node: ast.Attribute, aliases: dict[str, str]) -> str:
    parts = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return ""
    parts.append(aliases.get(value.id, value.id))
    return ".".join(reversed(parts))


def _aliases(nodes: Iterable[ast.AST]) -> dict[str, str]:
    return {
        alias.asname: alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


def _docstrings(nodes: Iterable[ast.AST]) -> set[int]:
    """Identities of strings that stand alone: documentation is no behaviour."""
    return {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
