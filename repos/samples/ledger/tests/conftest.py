import pytest

from ledger import Book


@pytest.fixture
def book():
    book = Book()
    book.post("2024-01-05", "salary", assets__bank=250000, income__job=-250000)
    book.post("2024-01-20", "rent", assets__bank=-90000, costs__rent=90000)
    book.post("2024-02-03", "food", assets__bank=-4250, costs__food=4250)
    book.post("2024-02-03", "cash", assets__bank=-10000, assets__cash=10000)
    return book
