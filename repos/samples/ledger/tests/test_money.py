import pytest

from ledger.money import compound, format_cents, parse_cents, round_to, split_cents


@pytest.mark.parametrize(
    ("text", "cents"),
    [("12", 1200), ("1,234.5", 123450), ("-0.07", -7), ("(3.20)", -320), (" .5 ", 50)],
)
def test_parse(text, cents):
    assert parse_cents(text) == cents


@pytest.mark.parametrize("text", ["", "abc", "1.234", "1.2.3"])
def test_parse_refuses(text):
    with pytest.raises(ValueError):
        parse_cents(text)


def test_format_groups_thousands():
    assert format_cents(123456789) == "1,234,567.89"
    assert format_cents(99999) == "999.99"


def test_format_without_groups():
    assert format_cents(123456789, group=False) == "1234567.89"


def test_format_sign_and_symbol():
    assert format_cents(-1205, symbol="$") == "-$12.05"
    assert format_cents(0) == "0.00"


def test_round_trip():
    for cents in (0, 1, -1, 99, 100, -100000, 123456):
        assert parse_cents(format_cents(cents)) == cents


def test_split_adds_up():
    assert split_cents(100, [1, 1, 1]) == [34, 33, 33]
    assert split_cents(10, [1, 2, 1]) == [3, 5, 2]


def test_split_gives_the_rest_to_the_largest_remainder():
    assert split_cents(100, [1, 5]) == [17, 83]
    assert split_cents(11, [3, 4, 3]) == [3, 5, 3]


@pytest.mark.parametrize("weights", [[], [0, 0], [2, -1]])
def test_split_refuses(weights):
    with pytest.raises(ValueError):
        split_cents(100, weights)


def test_compound():
    assert compound(10000, 5, 2) == 11025
    assert compound(10000, 12, 1, per_year=12) == 11267
    assert compound(10000, 5, 0) == 10000


def test_round_to():
    assert [round_to(cents) for cents in (12, 13, -12, -13, 15)] == [10, 15, -10, -15, 15]
    assert round_to(50, 100) == 100
    assert round_to(49, 100) == 0


def test_round_to_refuses():
    with pytest.raises(ValueError):
        round_to(10, 0)
