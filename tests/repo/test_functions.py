"""Functions and their line ranges, over generated sources."""

from __future__ import annotations

import ast
import textwrap

from hypothesis import given
from hypothesis import strategies as st

from selfplay.repo.languages.functions import list_functions

NAMES = st.sampled_from(["f", "g", "h", "run", "_private", "__init__"])


def functions(depth: int) -> st.SearchStrategy[str]:
    body = st.sampled_from(
        ["pass", "return 1", "x = 1\nreturn x", '"""Doc."""\n\nreturn (\n    2\n)']
    )
    if depth:
        body = st.one_of(body, functions(depth - 1))
    return st.builds(
        lambda decorators, word, name, signature, inner: (
            "".join(f"@{d}\n" for d in decorators)
            + f"{word} {name}({signature}):\n"
            + textwrap.indent(inner, "    ")
        ),
        st.lists(st.sampled_from(["cached", "wraps(\n    g\n)"]), max_size=2),
        st.sampled_from(["def", "async def"]),
        NAMES,
        st.sampled_from(["", "a, b=1", "\n    a,\n    *b,\n"]),
        body,
    )


def wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda head, blocks: head + "\n" + textwrap.indent("\n\n".join(blocks), "    "),
        st.sampled_from(["class A:", "class B(A):", "if True:", "try:", "with x:"]),
        st.lists(inner, min_size=1, max_size=3),
    ).map(lambda text: text + "\nexcept E:\n    pass" if text.startswith("try:") else text)


SOURCES = st.lists(
    st.one_of(
        functions(1), wrapped(functions(1)), wrapped(wrapped(functions(0))), st.just("x = 1")
    ),
    max_size=5,
).map(lambda blocks: "\n\n".join(blocks) + "\n")


@given(SOURCES)
def test_ranges_are_whole_functions(source: str) -> None:
    lines = source.splitlines()
    found = list_functions(source, "m.py")
    assert len({f.qualname for f in found}) == len(found)
    assert [f.start_line for f in found] == sorted(f.start_line for f in found)
    for function in found:
        assert function.path == "m.py"
        assert 1 <= function.start_line <= function.end_line <= len(lines)
        text = textwrap.dedent("\n".join(lines[function.start_line - 1 : function.end_line]))
        (node,) = ast.parse(text).body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert node.name == function.qualname.rpartition(".")[2]
        before = lines[function.start_line - 2] if function.start_line > 1 else ""
        assert not before.lstrip().startswith("@")


@given(SOURCES)
def test_ranges_do_not_overlap(source: str) -> None:
    end = 0
    for function in list_functions(source, "m.py"):
        assert function.start_line > end
        end = function.end_line


@given(st.text())
def test_any_text_is_survived(text: str) -> None:
    for function in list_functions(text, "m.py"):
        assert function.start_line <= function.end_line


def test_names() -> None:
    source = textwrap.dedent(
        """
        try:
            import fast
        except ImportError:
            def f(): return 1

        class A:
            class B:
                @staticmethod
                def g(): pass
            @property
            def p(self): return 1
            @p.setter
            def p(self, value): pass

        async def h():
            def nested(): pass
            class C:
                def k(self): pass

        def f(x):
            return x
        """
    )
    found = {f.qualname: f for f in list_functions(source, "m.py")}
    assert set(found) == {"A.B.g", "A.p", "h", "f"}
    lines = source.splitlines()
    assert lines[found["A.p"].start_line - 1].strip() == "@p.setter"
    assert lines[found["f"].start_line - 1] == "def f(x):"
    assert lines[found["A.B.g"].start_line - 1].strip() == "@staticmethod"


def test_source_that_does_not_parse() -> None:
    assert list_functions("def f(:\n", "m.py") == []
    assert list_functions("x = '\0'", "m.py") == []
    assert list_functions("", "m.py") == []
