from ledger.report import by_month, largest, runway, statement, table


def test_statement(book):
    assert statement(book, "assets:bank") == [
        ("2024-01-05", "salary", 250000, 250000),
        ("2024-01-20", "rent", -90000, 160000),
        ("2024-02-03", "food", -4250, 155750),
        ("2024-02-03", "cash", -10000, 145750),
    ]


def test_statement_leaves_out_moves_inside_an_account(book):
    assert [line[1] for line in statement(book, "assets")] == ["salary", "rent", "food"]


def test_statement_between_days(book):
    assert statement(book, "assets:bank", "2024-01-06", "2024-01-31") == [
        ("2024-01-20", "rent", -90000, 160000)
    ]
    assert statement(book, "assets:bank", last="2024-01-05")[0][3] == 250000


def test_by_month(book):
    assert by_month(book, "assets:bank") == {"2024-01": 160000, "2024-02": -14250}
    assert by_month(book, "assets") == {"2024-01": 160000, "2024-02": -4250}
    assert by_month(book, "costs:rent") == {"2024-01": 90000}


def test_by_month_without_postings(book):
    assert by_month(book, "nothing") == {}


def test_largest(book):
    assert [p.text for p in largest(book, "assets:bank", 2)] == ["salary", "rent"]
    assert [p.text for p in largest(book, "assets:bank")] == ["salary", "rent", "cash"]
    assert largest(book, "nothing") == []


def test_largest_takes_the_earlier_one_first(book):
    book.post("2024-01-01", "early", costs__food=4250, assets__cash=-4250)
    assert [p.text for p in largest(book, "costs:food")] == ["early", "food"]


def test_table():
    assert table([("food", 1250), ("rent", 90000)], width=16) == [
        "food...... 12.50",
        "rent..... 900.00",
    ]


def test_table_cuts_long_names():
    assert table([("a very long name", 100)], width=12, fill=" ") == ["a very~ 1.00"]
    assert table([("exactly", 100)], width=12) == ["exactly 1.00"]


def test_table_of_nothing():
    assert table([]) == []


def test_runway():
    assert runway([100, 90, 80]) == 8
    assert runway([100, 95, 85]) == 11


def test_runway_that_never_ends():
    assert runway([100]) is None
    assert runway([100, 110]) is None
    assert runway([100, 100]) is None
