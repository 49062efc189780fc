"""Values as text, self-contained: it runs beside a repository's tests. Nothing of the repository is
called: no `__repr__`, `__eq__`, `__hash__`, property or iterator of a class of its own.

`show` is for people and models: bounded, without addresses, the same in every process.
`literal` is exact: text that `ast.literal_eval` turns into an equal value of the same types.
"""

from __future__ import annotations

import array
import datetime
import decimal
import math
import pathlib
import re
import types
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

MAX_DEPTH = 3
MAX_ITEMS = 8
MAX_TEXT = 60
"""Characters (or bytes) of one text that are shown."""
MAX_NODES = 48
"""Values within a value that are shown."""
MAX_SET = 64
"""Elements up to which a set is shown: it must be sorted as a whole."""
MAX_DIGIT_BITS = 200
MAX_LITERAL = 300
"""Characters of an exact text."""
MAX_BUFFER = 512
"""Bytes up to which the numbers of a buffer are shown as a whole."""
CUT = "…"
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}")
_HEAP_TYPE = 1 << 9
_get_mro, _given_name, _flags_of, _space_of = (
    type.__dict__[name].__get__ for name in ("__mro__", "__name__", "__flags__", "__dict__")
)
"""What a class is, whatever its metaclass says."""
_module_space: Any = vars(types.ModuleType)["__dict__"].__get__  # type: ignore[index,unused-ignore]
"""A module's names, without its `__getattr__`."""


def _ids(*kinds: type) -> frozenset[int]:
    """Classes are told apart by identity: a metaclass may define `==`."""
    return frozenset(map(id, kinds))


_LITERAL = _ids(list, tuple, set, dict)
_PLAIN = _ids(
    *(datetime.date, datetime.timedelta, decimal.Decimal, range),
    *(pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath, pathlib.WindowsPath),
)
"""Shown by their own `repr`. (What a path keeps in its fields depends on who has read it.)"""
_ZONED = _ids(datetime.datetime, datetime.time)
_ZONES = _ids(type(None), datetime.timezone)
_SETTLED = _ids(types.GetSetDescriptorType, type(None))
_ATOMS = _ids(int, float, complex, bool, str, bytes, type(None))
_DATES = (datetime.datetime, datetime.date)
_zone_of = datetime.datetime.tzinfo.__get__  # type: ignore[attr-defined,unused-ignore]
"""As they are: a test may put others in their places, in every module."""
_BUILTIN = _ids(
    *(OrderedDict, dict, list, tuple, set, frozenset, deque, int, float, str, bytes),
    *(BaseException, datetime.datetime, datetime.date),
)
_NAMED = _ids(
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
    *(types.GeneratorType, types.CoroutineType, re.Pattern),
)


_UNSHOWN = (RuntimeError, ReferenceError, ValueError)
"""It changed while it was read, or holds odd numbers."""


class _Budget:
    """What is left to show of one value, and the containers that are being shown."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.path: list[int] = []


def show(value: Any) -> str:
    """A bounded text; what is left out is marked by "…", a cycle by "<cycle>"."""
    try:
        return _show(value, 0, _Budget(MAX_NODES))
    except _UNSHOWN:
        return f"<{_name_of(type(value))} {CUT}>"


def literal(value: Any) -> str | None:
    """The exact text, None where there is none or it is long."""
    try:
        found = _literal(value, 0, _Budget(MAX_LITERAL))
    except RuntimeError:
        return None
    if found is None or len(found) > MAX_LITERAL or _ADDRESS.search(found):
        return None
    return found


def show_exception(error: BaseException) -> str:
    """Class and arguments; its `__str__` may be the repository's own and is not called."""
    try:
        content = _content(error, BaseException, 1, _Budget(MAX_NODES))
    except _UNSHOWN:
        content = CUT
    return f"{_name_of(type(error))}({content})"


def _show(value: Any, depth: int, budget: _Budget) -> str:
    kind = type(value)
    budget.nodes -= 1
    if value is None or value is True or value is False or value is Ellipsis:
        return repr(value)
    if kind is int:
        return _number(value)
    if kind is float or kind is complex:
        return repr(value)
    if kind is str or kind is bytes or kind is bytearray:
        return _text(value)
    if id(kind) in _PLAIN:
        return _bounded(repr(value))
    if id(kind) in _ZONED and id(type(value.tzinfo)) in _ZONES:
        return repr(value)
    if isinstance(kind, type) and issubclass(kind, type):
        return f"<class {_name_of(value)}>"
    if id(kind) in _NAMED:
        return _named(value, kind)
    if any(seen == id(value) for seen in budget.path):
        return "<cycle>"
    if depth >= MAX_DEPTH or budget.nodes <= 0:
        return CUT
    budget.path.append(id(value))
    try:
        return _structure(value, kind, depth + 1, budget)
    finally:
        budget.path.pop()


def _structure(value: Any, kind: type, depth: int, budget: _Budget) -> str:
    """A container, or an object as its class, its elements and its fields."""
    base = next((b for b in _mro(kind) if id(b) in _BUILTIN), None)
    content = "" if base is None else _content(value, base, depth, budget)
    if kind is base and kind is not OrderedDict and kind is not deque and kind is not frozenset:
        return content
    name = _name_of(kind)
    if base is None and (kind is array.array or not _flags_of(kind) & _HEAP_TYPE):
        content = _of_builtin(value, kind, depth, budget)
    parts = [content] if content else []
    found = _fields(value, kind)
    for field, item in islice(found, MAX_ITEMS):
        parts.append(f"{field}={_show(item, depth, budget)}")
    if next(found, None) is not None:
        parts.append(CUT)
    if not parts and not _flags_of(kind) & _HEAP_TYPE:
        return f"<{name}>"
    return f"{name}({', '.join(parts)})"


def _content(value: Any, base: type, depth: int, budget: _Budget) -> str:
    """The elements of a container as those of the builtin class that it is or comes from."""
    if base is int:
        return _number(int.__add__(value, 0))
    if base is float:
        return float.__repr__(value)
    if base is str:
        return _text(str.__getitem__(value, slice(None)))
    if base is bytes:
        return _text(bytes.__getitem__(value, slice(None)))
    if base is BaseException:
        arguments = BaseException.__dict__["args"].__get__(value)
        shown = [_show(item, depth, budget) for item in arguments[:MAX_ITEMS]]
        return _joined(shown, len(arguments))
    if base in _DATES:
        zone = _zone_of(value) if base is _DATES[0] else None
        if id(type(zone)) not in _ZONES:
            return CUT
        return base.__repr__(value).partition("(")[2][:-1]
    size = base.__len__(value)  # type: ignore[attr-defined]
    if base is OrderedDict and not all(map(_is_atomic, dict.__iter__(value))):
        return f"{{{CUT} (+{size})}}"  # its order is found by the keys' own hashes
    if base is dict or base is OrderedDict:
        pairs = list(islice(base.items(value), MAX_ITEMS))
        shown = [f"{_show(k, depth, budget)}: {_show(v, depth, budget)}" for k, v in pairs]
        return "{" + _joined(shown, size) + "}"
    if base is set or base is frozenset:
        return _set(value, base, size, depth)
    items = list(islice(base.__iter__(value), MAX_ITEMS))  # type: ignore[attr-defined]
    shown = [_show(item, depth, budget) for item in items]
    if base is not tuple:
        return f"[{_joined(shown, size)}]"
    return f"({shown[0]},)" if size == 1 else f"({_joined(shown, size)})"


def _is_atomic(key: Any) -> bool:
    """Whether nothing of the repository is called where a key is hashed and compared."""
    return id(type(key)) in _ATOMS or (type(key) is tuple and all(map(_is_atomic, key)))


def _of_builtin(value: Any, kind: type, depth: int, budget: _Budget) -> str:
    """What an object of a class that C code defines holds, as far as that can be read without it:
    slices, namespaces, and numbers in a buffer (arrays, numpy's scalars)."""
    if kind is slice:
        return ", ".join(
            _show(part, depth, budget) for part in (value.start, value.stop, value.step)
        )
    if kind is types.SimpleNamespace:
        found = list(islice(object.__getattribute__(value, "__dict__").items(), MAX_ITEMS))
        return ", ".join(f"{name}={_show(item, depth, budget)}" for name, item in found)
    try:
        with memoryview(value) as view:
            if view.nbytes <= MAX_BUFFER or view.ndim == 1:
                items = view.tolist() if view.nbytes <= MAX_BUFFER else view[:MAX_ITEMS].tolist()
                cut = CUT if view.nbytes > MAX_BUFFER else ""
                return _show(items, depth, budget) + cut
            return f"{CUT} of {view.shape}"
    except (TypeError, ValueError, BufferError, NotImplementedError):  # it has none, or objects
        return ""


def _set(value: Any, base: type, size: int, depth: int) -> str:
    """Sorted by what is shown; each element has a budget of its own: order changes nothing."""
    if size == 0:
        return "set()" if base is set else ""
    if size > MAX_SET:
        return f"{{{CUT} (+{size})}}"
    elements = base.__iter__(value)  # type: ignore[attr-defined]
    shown = sorted(_show(item, depth, _Budget(MAX_ITEMS)) for item in elements)
    return "{" + _joined(shown[:MAX_ITEMS], size) + "}"


def _joined(shown: list[str], size: int) -> str:
    left = size - len(shown)
    return ", ".join([*shown, f"{CUT} (+{left})"] if left else shown)


def _number(value: int) -> str:
    if -(1 << MAX_DIGIT_BITS) < value < (1 << MAX_DIGIT_BITS):
        return repr(value)
    return f"<int of {value.bit_length()} bits {CUT}>"


def _text(value: Any) -> str:
    left = len(value) - MAX_TEXT
    shown = repr(value[:MAX_TEXT] if left > 0 else value)
    if type(value) is str:
        shown = _ADDRESS.sub("0x" + CUT, shown)
    return f"{shown}{CUT}(+{left})" if left > 0 else shown


def _named(value: Any, kind: type) -> str:
    """Functions, modules and the like, by their names."""
    if kind is types.FunctionType or kind is types.BuiltinFunctionType:
        return f"<function {_exact(value.__qualname__)}>"
    if kind is types.MethodType:
        inner = value.__func__
        name = _exact(inner.__qualname__) if type(inner) is types.FunctionType else CUT
        return f"<method {name}>"
    if kind is types.ModuleType:
        return f"<module {_exact(_module_space(value).get('__name__'))}>"
    if kind is types.GeneratorType or kind is types.CoroutineType:
        return f"<{kind.__name__} {_exact(value.__qualname__)}>"
    pattern = value.pattern
    return f"<pattern {_text(pattern if type(pattern) is bytes else _exact(pattern))}>"


def _fields(value: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """What an object of a class that Python code defines holds: its dict, then its slots; not what
    Python itself keeps there (`__doc__`, and addresses in some)."""
    if not _flags_of(kind) & _HEAP_TYPE:
        return iter(())
    spaces = [(base, _space_of(base)) for base in _mro(kind)]
    inside: Any = {}
    if all(id(type(space.get("__dict__"))) in _SETTLED for _, space in spaces):
        try:
            inside = object.__getattribute__(value, "__dict__")
        except AttributeError:
            inside = {}
    slots = (
        (name, member)
        for base, space in spaces
        if _flags_of(base) & _HEAP_TYPE
        for name, member in space.items()
        if type(member) is types.MemberDescriptorType
    )
    own = list(dict.items(inside)) if isinstance(inside, dict) else []
    named = ((name, item) for name, item in own if type(name) is str)
    found = chain(named, _filled(value, slots))
    return ((name, item) for name, item in found if not name.startswith("__"))


def _filled(value: Any, slots: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for name, member in list(slots):
        try:
            yield name, member.__get__(value)
        except AttributeError:
            continue


def _literal(value: Any, depth: int, budget: _Budget) -> str | None:
    """Values within it are counted as they are met: each takes a character, and lists that hold one
    another many times over would take for ever."""
    kind = type(value)
    budget.nodes -= 1
    if budget.nodes < 0:
        return None
    if value is None or value is True or value is False:
        return repr(value)
    if kind is int:
        return repr(value) if value.bit_length() <= MAX_DIGIT_BITS else None
    if kind is float:
        return repr(value) if math.isfinite(value) else None
    if kind is str or kind is bytes:
        return repr(value) if len(value) <= MAX_LITERAL else None
    if id(kind) not in _LITERAL or depth > 2 * MAX_DEPTH or len(value) > MAX_SET:
        return None
    inside = chain(*value.items()) if kind is dict else value
    found = [_literal(item, depth + 1, budget) for item in inside]
    known = [item for item in found if item is not None]
    if len(known) != len(found) or sum(map(len, known)) > MAX_LITERAL:
        return None
    if kind is dict:
        pairs = [f"{known[n]}: {known[n + 1]}" for n in range(0, len(known), 2)]
        return "{" + ", ".join(pairs) + "}"
    if kind is list:
        return f"[{', '.join(known)}]"
    if kind is tuple:
        return f"({known[0]},)" if len(known) == 1 else f"({', '.join(known)})"
    return "{" + ", ".join(sorted(known)) + "}" if known else "set()"


def _bounded(text: str) -> str:
    left = len(text) - 2 * MAX_TEXT
    return f"{text[: 2 * MAX_TEXT]}{CUT}(+{left})" if left > 0 else text


def _name_of(kind: type) -> str:
    return _exact(_given_name(kind))


def _exact(name: Any) -> str:
    """A name as a plain text: programs may set one of a class of their own, or none."""
    return str.__getitem__(name, slice(None)) if issubclass(type(name), str) else CUT


def _mro(kind: type) -> tuple[type, ...]:
    found: tuple[type, ...] = _get_mro(kind)
    return found
