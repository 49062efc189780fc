import pytest

from ledger import Book


def test_balance(book):
    assert book.balance("assets:bank") == 145750
    assert book.balance("costs:rent") == 90000


def test_balance_of_a_parent(book):
    assert book.balance("assets") == 155750
    assert book.balance("costs") == 94250


def test_balance_does_not_mix_names_that_begin_alike(book):
    book.post("2024-03-01", "other", assets2=5, income__job=-5)
    assert book.balance("assets") == 155750


def test_balance_until_a_day(book):
    assert book.balance("assets:bank", until="2024-01-20") == 160000
    assert book.balance("assets:bank", until="2024-01-04") == 0


def test_everything_adds_up(book):
    assert sum(book.balance(name) for name in book.accounts(1)) == 0


def test_unbalanced_posting():
    with pytest.raises(ValueError, match="balance"):
        Book().post("2024-01-01", "wrong", a=1, b=1)
    with pytest.raises(ValueError, match="balance"):
        Book().post("2024-01-01", "alone", a=0)


def test_days_are_kept_in_order(book):
    book.post("2024-01-10", "late entry", costs__food=100, assets__cash=-100)
    assert [p.text for p in book.postings] == ["salary", "late entry", "rent", "food", "cash"]


def test_same_day_keeps_the_order_of_entry(book):
    book.post("2024-01-20", "second", costs__food=100, assets__cash=-100)
    assert [p.text for p in book.postings][1:3] == ["rent", "second"]


def test_accounts(book):
    assert book.accounts() == [
        "assets:bank", "assets:cash", "costs:food", "costs:rent", "income:job",
    ]
    assert book.accounts(depth=1) == ["assets", "costs", "income"]


def test_close(book):
    with pytest.raises(ValueError, match="10000"):
        book.close("assets:cash")
    book.post("2024-03-01", "back", assets__bank=10000, assets__cash=-10000)
    book.close("assets:cash")
    with pytest.raises(ValueError, match="closed"):
        book.post("2024-03-02", "again", assets__bank=1, assets__cash=-1)


def test_undo(book):
    assert [p.text for p in book.undo(2)] == ["cash", "food"]
    assert [p.text for p in book.undo()] == ["rent"]
    assert len(book.postings) == 1
    assert book.undo(0) == []
    with pytest.raises(ValueError):
        book.undo(2)


def test_touches(book):
    rent = book.postings[1]
    assert rent.touches("costs") and rent.touches("costs:rent")
    assert not rent.touches("cost") and not rent.touches("income")
