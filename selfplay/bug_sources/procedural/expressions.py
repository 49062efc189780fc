"""Operators on expressions: each yields edits of one function, parse-checked by `propose`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

from selfplay.bug_sources.procedural.code import Edit, FunctionCode, Splice

_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: (r"<", ("<=", ">")),
    ast.LtE: (r"<=", ("<", ">=")),
    ast.Gt: (r">", (">=", "<")),
    ast.GtE: (r">=", (">", "<=")),
    ast.Eq: (r"==", ("!=",)),
    ast.NotEq: (r"!=", ("==",)),
    ast.Is: (r"\bis\b", ("is not",)),
    ast.IsNot: (r"\bis\s+not\b", ("is",)),
    ast.In: (r"\bin\b", ("not in",)),
    ast.NotIn: (r"\bnot\s+in\b", ("in",)),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, tuple[str, ...]]] = {
    ast.Add: (r"\+", ("-",)),
    ast.Sub: (r"-", ("+",)),
    ast.Mult: (r"\*", ("+", "//")),
    ast.Div: (r"/", ("*", "//")),
    ast.FloorDiv: (r"//", ("/", "%")),
    ast.Mod: (r"%", ("//",)),
    ast.Pow: (r"\*\*", ("*",)),
    ast.LShift: (r"<<", (">>",)),
    ast.RShift: (r">>", ("<<",)),
    ast.BitAnd: (r"&", ("|",)),
    ast.BitOr: (r"\|", ("&",)),
    ast.BitXor: (r"\^", ("|",)),
}
_SIBLINGS = [
    "append extend",
    "append appendleft",
    "pop popleft",
    "strip lstrip rstrip",
    "lower upper",
    "startswith endswith",
    "find rfind",
    "index rindex",
    "split rsplit",
    "partition rpartition",
    "ljust rjust",
    "keys values items",
    "add discard",
    "union intersection difference",
    "isdigit isalpha",
    "title capitalize",
    "encode decode",
    "match search fullmatch",
    "floor ceil",
    "min max",
    "any all",
    "int float",
    "list tuple",
    "isinstance issubclass",
    "getattr hasattr",
    "sum len",
    "get pop",
]
_UNWRAPPED = {"list", "tuple", "set", "sorted", "reversed", "str", "int", "iter", "abs"}


def swap_comparison(code: FunctionCode) -> Iterator[Edit | None]:
    """`a < b` -> `a <= b`, `a > b`; `==` -> `!=`; `in` -> `not in`; ..."""
    for node in code.nodes(ast.Compare):
        operands = [node.left, *node.comparators]
        for op, left, right in zip(node.ops, operands, operands[1:], strict=False):
            pattern, alternatives = _COMPARISONS[type(op)]
            for new in alternatives:
                yield code.between(left, right, pattern, new)


def negate_condition(code: FunctionCode) -> Iterator[Edit | None]:
    """`if x` -> `if not x`, and back."""
    tests = [n.test for n in code.nodes(ast.AST) if isinstance(n, ast.If | ast.While | ast.IfExp)]
    tests += [test for n in code.nodes(ast.comprehension) for test in n.ifs]
    for test in tests:
        start, end = code.span(test)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield code.gap(start, code.span(test.operand)[0], r"not\s*", "")
        elif isinstance(test, ast.BoolOp | ast.IfExp | ast.Lambda | ast.NamedExpr):
            yield (Splice(start, start, "not ("), Splice(end, end, ")"))
        else:
            yield (Splice(start, start, "not "),)


def swap_and_or(code: FunctionCode) -> Iterator[Edit | None]:
    """`a and b` -> `a or b`, and back."""
    for node in code.nodes(ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in pairwise(node.values):
            yield code.between(left, right, rf"\b{old}\b", new)


def drop_operand(code: FunctionCode) -> Iterator[Edit | None]:
    """`a and b` -> `a`, `b`."""
    for node in code.nodes(ast.BoolOp):
        for left, right in pairwise(node.values):
            yield (Splice(code.span(left)[1], code.span(right)[1], ""),)
            yield (Splice(code.span(left)[0], code.span(right)[0], ""),)


def swap_branches(code: FunctionCode) -> Iterator[Edit | None]:
    """`a if c else b` -> `b if c else a`."""
    return (code.swap(node.body, node.orelse) for node in code.nodes(ast.IfExp))


def off_by_one(code: FunctionCode) -> Iterator[Edit | None]:
    """`3` -> `4`, `2`."""
    for node in code.nodes(ast.Constant):
        if type(node.value) is int and re.fullmatch(r"\d{1,9}", code.text(node)):
            yield code.replace(node, str(node.value + 1))
            if node.value > 0:
                yield code.replace(node, str(node.value - 1))


def flip_constant(code: FunctionCode) -> Iterator[Edit | None]:
    """`True` -> `False`, `None` -> `False`."""
    new = {True: "False", False: "True", None: "False"}
    for node in code.nodes(ast.Constant):
        if node.value is None or isinstance(node.value, bool):
            yield code.replace(node, new[node.value])


def change_default(code: FunctionCode) -> Iterator[Edit | None]:
    """`def f(a=1)` -> `def f(a=2)`; `None` -> `0`, `True` -> `False`, `"x"` -> `""`."""
    arguments = code.node.args
    for node in [*arguments.defaults, *arguments.kw_defaults]:
        if not isinstance(node, ast.Constant):
            continue
        if node.value is None:
            yield code.replace(node, "0")
        elif isinstance(node.value, bool):
            yield code.replace(node, str(not node.value))
        elif isinstance(node.value, int):
            yield code.replace(node, str(node.value + 1))
        elif isinstance(node.value, str):
            yield from (code.replace(node, text) for text in _other_strings(code.text(node)))


def swap_arithmetic(code: FunctionCode) -> Iterator[Edit | None]:
    """`a + b` -> `a - b`; `//` -> `/`; ... (not on text)."""
    for node in code.nodes(ast.BinOp):
        if any(_is_text(operand) for operand in (node.left, node.right)):
            continue
        pattern, alternatives = ARITHMETIC.get(type(node.op), ("", ()))
        for new in alternatives:
            yield code.between(node.left, node.right, pattern, new)


def drop_sign(code: FunctionCode) -> Iterator[Edit | None]:
    """`-x` -> `x`."""
    for node in code.nodes(ast.UnaryOp):
        if isinstance(node.op, ast.USub | ast.Invert):
            yield code.gap(code.span(node)[0], code.span(node.operand)[0], r"[-~]\s*", "")


def wrong_name(code: FunctionCode) -> Iterator[Edit | None]:
    """A variable -> another one in scope (a parameter, or bound on an earlier line)."""
    arguments = code.node.args
    bound = {arg.arg: 0 for arg in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    for node in code.nodes(ast.Name):
        if isinstance(node.ctx, ast.Store):
            bound.setdefault(node.id, node.lineno)
    for name in ("self", "cls", "_"):
        bound.pop(name, None)
    for node in code.nodes(ast.Name):
        if not isinstance(node.ctx, ast.Load) or node.id not in bound:
            continue
        others = sorted(n for n, line in bound.items() if n != node.id and line < node.lineno)
        if others:
            pick = crc32(f"{node.id}{node.lineno}{node.col_offset}".encode()) % len(others)
            yield code.replace(node, others[pick])


def wrong_attribute(code: FunctionCode) -> Iterator[Edit | None]:
    """`self.a` -> `self.b`, another attribute that the function reads or writes."""
    owned = [
        node
        for node in code.nodes(ast.Attribute)
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    ]
    names = sorted({node.attr for node in owned})
    for node in owned:
        others = [name for name in names if name != node.attr]
        if others and isinstance(node.ctx, ast.Load):
            pick = crc32(f"{node.attr}{node.lineno}{node.col_offset}".encode()) % len(others)
            end = code.span(node)[1]
            yield (Splice(end - len(node.attr.encode()), end, others[pick]),)


def wrong_call(code: FunctionCode) -> Iterator[Edit | None]:
    """`x.lstrip()` -> `x.strip()`, `min` -> `max`: a sibling of the function called."""
    for node in code.nodes(ast.Call):
        target = node.func
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
        end = code.span(target)[1]
        for siblings in map(str.split, _SIBLINGS):
            if name in siblings:
                for other in siblings:
                    yield (Splice(end - len(name.encode()), end, other),)


def swap_arguments(code: FunctionCode) -> Iterator[Edit | None]:
    """`f(a, b)` -> `f(b, a)`."""
    for node in code.nodes(ast.Call):
        for left, right in pairwise(node.args):
            if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                yield code.swap(left, right)


def drop_argument(code: FunctionCode) -> Iterator[Edit | None]:
    """`f(a, b, key=c)` -> `f(a, b)`: the last argument goes."""
    for node in code.nodes(ast.Call):
        given = sorted([*node.args, *node.keywords], key=code.span)
        if len(given) >= 2:
            yield (Splice(code.span(given[-2])[1], code.span(given[-1])[1], ""),)


def unwrap_call(code: FunctionCode) -> Iterator[Edit | None]:
    """`sorted(x)` -> `x`."""
    for node in code.nodes(ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in _UNWRAPPED and len(node.args) == 1:
            argument = node.args[0]
            text = code.text(argument)
            simple = isinstance(argument, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
            if not isinstance(argument, ast.Starred | ast.GeneratorExp):
                yield code.replace(node, text if simple else f"({text})")


def swap_elements(code: FunctionCode) -> Iterator[Edit | None]:
    """`return a, b` -> `return b, a`; also in lists and dictionaries' values."""
    for node in code.nodes(ast.AST):
        elements: list[ast.expr] = []
        if isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Load):
            elements = node.elts
        elif isinstance(node, ast.Dict):
            elements = node.values
        for left, right in list(pairwise(elements))[:2]:
            if not isinstance(left, ast.Starred) and not isinstance(right, ast.Starred):
                yield code.swap(left, right)


def change_index(code: FunctionCode) -> Iterator[Edit | None]:
    """`x[a:b]` -> `x[a:]`, `x[:b]`; `x[0]` -> `x[-1]`, and back."""
    for node in code.nodes(ast.Subscript):
        index = node.slice
        if isinstance(index, ast.Slice):
            yield from (code.replace(b, "") for b in (index.lower, index.upper) if b)
        elif code.text(index) in ("0", "-1"):
            yield code.replace(index, "-1" if code.text(index) == "0" else "0")


def change_string(code: FunctionCode) -> Iterator[Edit | None]:
    """A short string literal loses or changes a character."""
    for node in code.nodes(ast.Constant):
        if isinstance(node.value, str | bytes) and len(node.value) <= 30:
            yield from (code.replace(node, text) for text in _other_strings(code.text(node)))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _other_strings(literal: str) -> list[str]:
    """Variants of one simple literal: `'ab'` -> `'a'`, `'Ab'`; `''` -> `' '`."""
    match = re.fullmatch(r"([bBrRuU]*)(['\"])([^'\"\\\r\n]*)\2", literal)
    if match is None:
        return []
    prefix, quote, body = match.groups()
    bodies = (
        [body[:-1], body.swapcase() if len(body) <= 2 else body.capitalize()] if body else [" "]
    )
    if body in (" ", "-", "_", "."):
        bodies.append({" ": "-", "-": "_", "_": "-", ".": ","}[body])
    return [prefix + quote + new + quote for new in dict.fromkeys(bodies) if new != body]
