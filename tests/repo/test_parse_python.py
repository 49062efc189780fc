"""CPython 3.11 may fail to make a syntax tree while another thread makes one."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from selfplay.repo.languages import python_functions


@pytest.mark.parametrize("num_faults", [1, python_functions.TRIES])
def test_a_parse_that_another_thread_spoilt_is_repeated(
    monkeypatch: pytest.MonkeyPatch, num_faults: int
) -> None:
    """Libraries parse without our lock; a fault that stays is told."""
    parse, faults = ast.parse, [SystemError("AST constructor recursion depth mismatch")]
    faults *= num_faults

    def spoilt(*words: Any) -> ast.AST:
        if faults:
            raise faults.pop()
        return parse(*words)

    monkeypatch.setattr(python_functions.ast, "parse", spoilt)
    if num_faults == 1:
        assert isinstance(python_functions.parse_python("a = 1"), ast.Module)
    else:
        with pytest.raises(SystemError):
            python_functions.parse_python("a = 1")
