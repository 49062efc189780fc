"""Perl read without running it: functions, quoted texts, modules, test statements."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfplay.repo.discovery.perl_reach import PerlReach
from selfplay.repo.languages.functions import list_functions
from selfplay.repo.languages.perl_functions import loaded_files, used_modules
from selfplay.repo.languages.perl_source import plain_code, scan
from selfplay.repo.languages.perl_tests import find_statements, num_test_calls

TRICKY = r"""
package A;
sub plain { my ($x) = @_; return $x }   # } a brace in a comment
sub texts {
    my $t = "}" . '{' . q{a { nested } brace} . qq[}] ;
    return $t =~ /^[{]\/#/ ? $t / 2 / 3 : split /}/, $t;
}
sub documents($$;$) {
    print <<"END", <<'OTHER';
} $x
END
{
OTHER
    return $#_ + @{$_[0]} + $h{s} + $h{y} if m{\}};
}

=head1 sub pod { }

=cut

sub swaps { my $s = shift; $s =~ s/{/}/g; $s =~ tr{a-z}{A-Z}; (my $y = $s) =~ s{\{}{\}}x; $s }
sub outer { my $f = sub { 1 }; sub inner { 2 } return $f }
sub twice { 1 }
sub twice { 2 }
sub later;
sub last_one
{
    return 1;
}
__END__
sub gone { }
"""


def test_functions_are_cut_where_they_end() -> None:
    found = {f.qualname: (f.start_line, f.end_line) for f in list_functions(TRICKY, "lib/A.pm")}
    assert set(found) == {"plain", "texts", "documents", "swaps", "outer", "last_one"}
    lines = TRICKY.split("\n")
    for name, (first, last) in found.items():
        assert f"sub {name}" in lines[first - 1] and "}" in lines[last - 1]
    assert found["documents"] == (8, 15) and found["last_one"][1] - found["last_one"][0] == 3


@pytest.mark.parametrize("source", ["sub f { ", "sub f { } }", "sub f { 'x }", "sub f { m{ }", "q"])
def test_in_doubt_nothing_is_listed(source: str) -> None:
    assert list_functions(source, "A.pm") == []


@given(st.text(alphabet="sub f{}()[]'\"/#\\\n=qmy$@ <x;", max_size=60))
def test_any_text_is_read(source: str) -> None:
    found = scan(source)
    assert found is None or len(found.code) == len(source)
    for f in list_functions(source, "A.pm"):
        assert 1 <= f.start_line <= f.end_line <= source.count("\n") + 1


def test_code_without_layout() -> None:
    assert plain_code("f( 1 ); # x\n") == plain_code("f(1);\n\n=pod\n\nx\n\n=cut\n")
    assert plain_code("f('a b')") != plain_code("f('ab')")
    assert plain_code("f($a)") != plain_code("f($b)")


def test_loaded_modules() -> None:
    known = ("lib/A/B.pm", "lib/C.pm", "t/lib/D.pm", "E.pl", "lib/F.pm")
    source = "use A::B qw(x);\nuse parent -norequire, 'C';\nuse_ok('D');\nrequire 'E.pl';\n# use F;"
    assert loaded_files(source, known) == set(known) - {"lib/F.pm"}
    assert used_modules("use strict;\nuse A::B;\nuse C qw(f);\nuse Test::More;") == ["A::B", "C"]


def test_reach_follows_names(tmp_path: Path) -> None:
    for name, text in {
        "lib/A.pm": "package A;\nour @EXPORT_OK = qw(f g h);\nsub f { B::low() }\nsub g {\n1 }\n1;",
        "lib/B.pm": "package B;\nsub low { 1 }\nsub high { 2 }\n1;",
        "t/a.t": "use A qw(f g); use B;\nis(f(), 1, 'one');\nis(g(), 1, 'two');\n",
        "t/b.t": "system('./x');\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    reach = PerlReach(tmp_path)
    assert reach.functions("t/a.t", ["one", "two"]) == {
        "one": {"lib/A.pm::f", "lib/B.pm::low"},
        "two": {"lib/A.pm::g"},
    }
    assert len(reach.functions("t/b.t", ["x"])["x"]) == 4


TESTS = """use Test::More;
is(f({ a => 1 }), 'two', 'one');
is f('one'), 2, "two";
for my $n (1 .. 3) {
    is(f($n), $n, "number $n");
}
subtest 'group' => sub {
    ok(1, 'inner'); ok(1, 'two');
};
ok(f(), 'same'); ok(
    g(),
    'same',
);
my $x = is(1, 1, 'kept');
ok(1, 'named ' . $x);
done_testing;
"""


def test_statements_behind_names() -> None:
    names = ["one", "two", "number 2", "group", "same", "same#2", "inner", "kept", "named 1"]
    found = find_statements(TESTS, names)
    text = {n: TESTS[slice(*s.span)] if s else None for n, s in found.items()}
    assert text["one"] == "is(f({ a => 1 }), 'two', 'one');"
    assert text["two"] == "is f('one'), 2, \"two\";"
    assert text["number 2"] == 'is(f($n), $n, "number $n");'
    assert text["group"] and text["group"].startswith("subtest") and text["group"].endswith("};")
    assert text["same"] == "ok(f(), 'same');" and (text["same#2"] or "").endswith("'same',\n);")
    assert text["inner"] is text["kept"] is text["named 1"] is None
    assert num_test_calls(TESTS) == 8
    assert found["one"].plain and not found["number 2"].plain  # type: ignore[union-attr]
