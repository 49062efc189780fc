"""Small changes of single lines, for languages that are not parsed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfplay.bug_sources.procedural import propose
from selfplay.bug_sources.procedural.text import line_mutations
from selfplay.repo.languages.functions import list_functions
from selfplay.scripted.compact import candidate_answers

SOURCE = """package A;

sub less {
    my ($x, $y) = @_;
    return 0 if $x < $y;    # as in 3 < 4
    return $x - $y . ' < ';
}

1;
"""


def test_quoted_texts_and_comments_stay() -> None:
    found = {new for *_, new in line_mutations("    return 0 if $x < $y;    # as in 3 < 4\n")}
    assert "    return 0 if $x <= $y;    # as in 3 < 4\n" in found
    assert all(not new or new.endswith("# as in 3 < 4\n") for new in found)
    texts = {new for *_, new in line_mutations("    return $x - $y . ' < ';\n") if new}
    assert texts == {"    return $x + $y . ' < ';\n"}


@given(st.text(alphabet="ab$ =!<>+-*/%&|if'\"#1;{}\n", max_size=40))
def test_every_change_changes(line: str) -> None:
    for operator, kind, removal, new in line_mutations(line):
        assert operator and kind and new != line and removal == (new == "")


def test_a_perl_function_is_mutated_inside_only() -> None:
    (function,) = list_functions(SOURCE, "lib/A.pm")
    found = propose(SOURCE, function)
    assert {m.operator for m in found} >= {"swap_comparison", "swap_arithmetic", "drop_statement"}
    for mutation in found:
        assert function.start_line < mutation.line <= function.end_line
        assert mutation.source != SOURCE and mutation.source.startswith(
            "package A;\n\nsub less {\n"
        )


def test_the_scripted_policy_repairs_what_is_no_python() -> None:
    prompt = "1| sub less {\n2|     my ($x, $y) = @_;\n3|     return $x > $y;\n4| }\n\nFix the bug"
    assert "3|     return $x >= $y;" in candidate_answers(prompt)
    plant = prompt.replace("Fix the bug", "Plant a bug: condition in line 3")
    assert candidate_answers(plant) == ["3|     return $x >= $y;"]
