"""Sources of chance in Python, found on the syntax tree: by module, member, name and builtin, and
where a set is walked through in its order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import lru_cache

from selfplay.bugs.code_signals.findings import Source
from selfplay.repo.languages.python_source import KEPT, parse

MODULES: dict[str, str] = {
    **dict.fromkeys(("random", "secrets", "uuid", "numpy.random"), "randomness"),
    **dict.fromkeys(("time", "sched", "timeit"), "clock"),
    **dict.fromkeys(("gc", "weakref", "tracemalloc"), "identity"),
    **dict.fromkeys(("platform", "socket", "getpass", "tempfile", "resource"), "environment"),
    **dict.fromkeys(("concurrent", "multiprocessing", "_thread"), "threads"),
    "glob": "order",
}
HARMLESS = frozenset({"time.sleep", "time.struct_time", "time.strptime", "time.mktime"})
MEMBERS: dict[str, str] = {
    **dict.fromkeys(("os.urandom", "os.getrandom"), "randomness"),
    **dict.fromkeys(
        (
            *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
            *("datetime.date.today", "os.times"),
        ),
        "clock",
    ),
    **dict.fromkeys(("sys.getrefcount", "sys.intern", "sys.getsizeof"), "identity"),
    **dict.fromkeys(
        (
            *("os.environ", "os.environb", "os.getenv", "os.getpid", "os.getppid", "os.getcwd"),
            *(
                "os.uname",
                "os.getlogin",
                "os.cpu_count",
                "os.getloadavg",
                "os.stat",
                "os.get_terminal_size",
            ),
            *("sys.flags", "sys.platform", "locale.getlocale", "locale.getpreferredencoding"),
        ),
        "environment",
    ),
    **dict.fromkeys(
        (
            *("threading.Thread", "threading.Timer", "threading.get_ident"),
            *("threading.get_native_id", "threading.current_thread", "threading.active_count"),
            *("threading.enumerate", "asyncio.to_thread"),
        ),
        "threads",
    ),
    **dict.fromkeys(("os.listdir", "os.scandir", "os.walk", "os.fwalk"), "order"),
}
BUILTINS = {"id": "identity", "hash": "identity"}
NAMES: dict[str, str] = {
    **dict.fromkeys(
        (
            *("getrandbits", "randint", "randrange", "randbytes", "urandom", "randbelow"),
            *("token_hex", "token_bytes", "token_urlsafe", "uuid1", "uuid4", "SystemRandom"),
            "default_rng",
        ),
        "randomness",
    ),
    **dict.fromkeys(
        (
            *("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time_ns"),
            *("process_time", "process_time_ns", "thread_time", "utcnow"),
            *("st_mtime", "st_mtime_ns", "st_atime", "st_ctime", "getmtime", "getctime"),
        ),
        "clock",
    ),
    **dict.fromkeys(("getrefcount", "st_ino"), "identity"),
    **dict.fromkeys(("getpid", "gethostname"), "environment"),
    **dict.fromkeys(("get_ident", "get_native_id", "run_in_executor"), "threads"),
    **dict.fromkeys(("iterdir", "rglob", "listdir", "scandir"), "order"),
}
"""What gives itself away by its own name, whatever it belongs to."""
CALLED = {"now": "clock", "today": "clock"}
"""The same, where it is called."""
DEVICES = ("/dev/random", "/dev/urandom", "/proc/")
_WHOLE = frozenset({"os", "sys", "datetime", "threading"})
"""Modules that are not handed on as a whole: a member's name could then be put together."""
_ORDERED = frozenset(
    {
        "list",
        "tuple",
        "iter",
        "enumerate",
        "next",
        "zip",
        "map",
        "filter",
        "join",
        "fromkeys",
        "str",
    }
)
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})


def python_chance(source: str, raw: bool = False) -> list[Source]:
    """Sources of chance in one file; [] where it does not parse, whatever `raw` says."""
    return list(_chance(source))


@lru_cache(maxsize=KEPT)
def _chance(source: str) -> tuple[Source, ...]:
    module = parse(source)
    return tuple(module_chance(module)) if module is not None else ()


def module_chance(module: ast.Module) -> list[Source]:
    """Sources of chance in a parsed file, in no order."""
    nodes = list(ast.walk(module))
    imports, sets = imported_names(nodes), _set_names(nodes)
    inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    called = {id(n.func) for n in nodes if isinstance(n, ast.Call)}
    found: list[Source] = []
    for node in nodes:
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            found += _of_chain(node, imports, line)
        if isinstance(node, ast.Attribute) and node.attr in NAMES and not _dotted(node, imports):
            found.append(Source(kind=NAMES[node.attr], name=node.attr, line=line))
        if isinstance(node, ast.Attribute) and node.attr in CALLED and id(node) in called:
            known = _kind_of(_dotted(node, imports))
            found += [] if known else [Source(kind=CALLED[node.attr], name=node.attr, line=line)]
        if isinstance(node, ast.Name) and id(node) not in inner:
            found += _of_name(node, imports, id(node) in called)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _of_text(node.value, line)
        name = _set_iteration(node, sets)
        if name:
            found.append(Source(kind="order", name=name, line=line))
    return found


def imported_names(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """{name in the file: what it stands for, dotted}, for imports of other packages."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.asname is not None
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if whole else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _kind_of(dotted: str) -> str:
    """The kind of a dotted name or of what it lies in, "" for none."""
    if not dotted or any(dotted == h or dotted.startswith(f"{h}.") for h in HARMLESS):
        return ""
    parts = dotted.split(".")
    heads = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return next((kind for h in heads if (kind := MEMBERS.get(h) or MODULES.get(h, ""))), "")


def _of_chain(node: ast.Attribute, imports: dict[str, str], line: int) -> list[Source]:
    dotted = _dotted(node, imports)
    kind = _kind_of(dotted)
    return [Source(kind=kind, name=dotted, line=line)] if kind else []


def _of_name(node: ast.Name, imports: dict[str, str], is_called: bool) -> list[Source]:
    dotted = imports.get(node.id, "")
    kind = _kind_of(dotted) or (BUILTINS.get(node.id, "") if not dotted and is_called else "")
    if not kind and dotted in _WHOLE:
        kind = "environment"
    known = isinstance(node.ctx, ast.Load) and bool(kind)
    return [Source(kind=kind, name=dotted or node.id, line=node.lineno)] if known else []


def _of_text(text: str, line: int) -> list[Source]:
    if text in NAMES:
        return [Source(kind=NAMES[text], name=repr(text), line=line)]
    if text.startswith(DEVICES):
        return [Source(kind="randomness", name=repr(text[:20]), line=line)]
    return []


def _dotted(node: ast.Attribute, imports: dict[str, str]) -> str:
    """What an attribute of something imported stands for, "" for any other."""
    parts = [node.attr]
    value: ast.expr = node.value
    while isinstance(value, ast.Attribute):
        parts.append(value.attr)
        value = value.value
    if not isinstance(value, ast.Name) or value.id not in imports:
        return ""
    return ".".join([imports[value.id], *reversed(parts)])


def _set_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names and attributes of the file that are given a set somewhere."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and _is_set(node.value, names):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name for target in targets if (name := _last_name(target))}
    return names


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _is_set(node: ast.AST | None, names: set[str]) -> bool:
    """Whether an expression is surely, or by its name, a set whose order means something."""
    if isinstance(node, ast.Set):
        return not all(
            isinstance(e, ast.Constant) and isinstance(e.value, int | float) for e in node.elts
        )
    if isinstance(node, ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return _last_name(node.func) in {"set", "frozenset", *_SET_METHODS}
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor
    ):
        return _is_set(node.left, names) or _is_set(node.right, names)
    return isinstance(node, ast.Name | ast.Attribute) and _last_name(node) in names


def _set_iteration(node: ast.AST, names: set[str]) -> str:
    """How a node takes the members of a set in their order, "" when it does not."""
    if isinstance(node, ast.For | ast.comprehension | ast.AsyncFor) and _is_set(node.iter, names):
        return "iteration over a set"
    if isinstance(node, ast.Starred) and _is_set(node.value, names):
        return "a set unpacked"
    if isinstance(node, ast.Call):
        word = _last_name(node.func)
        if word in _ORDERED and any(_is_set(argument, names) for argument in node.args):
            return f"{word}() of a set"
        taken = word == "pop" and not node.args and isinstance(node.func, ast.Attribute)
        if taken and isinstance(node.func, ast.Attribute) and _is_set(node.func.value, names):
            return "pop() of a set"
    return ""
