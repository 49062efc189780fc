"""Reports over a book: statements, monthly totals, the largest postings, text tables."""

from ledger.money import format_cents


def statement(book, account, first="", last="9999"):
    """Lines (day, text, change, running balance) of an account between two days."""
    lines = []
    running = 0
    for posting in book.postings:
        change = 0
        for name, cents in posting.amounts.items():
            if name == account or name.startswith(account + ":"):
                change += cents
        running += change
        if change != 0 and first <= posting.day <= last:
            lines.append((posting.day, posting.text, change, running))
    return lines


def by_month(book, account):
    """{'2024-01': cents}: what an account changed by in each month, without empty months."""
    totals = {}
    for posting in book.postings:
        if not posting.touches(account):
            continue
        month = posting.day[:7]
        for name, cents in posting.amounts.items():
            if name == account or name.startswith(account + ":"):
                totals[month] = totals.get(month, 0) + cents
    return {month: cents for month, cents in totals.items() if cents != 0}


def largest(book, account, count=3):
    """The postings with the largest amounts on an account, whatever their sign."""
    found = []
    for posting in book.postings:
        size = abs(posting.amounts.get(account, 0))
        if size > 0:
            found.append((size, posting))
    found.sort(key=lambda pair: (-pair[0], pair[1].day))
    return [posting for _, posting in found[:count]]


def table(rows, width=30, fill="."):
    """Text lines 'name.....amount' of equal width; long names are cut."""
    lines = []
    for name, cents in rows:
        amount = format_cents(cents)
        room = width - len(amount) - 1
        if len(name) > room:
            name = name[: room - 1] + "~"
        lines.append(name.ljust(room, fill) + " " + amount)
    return lines


def runway(balances):
    """Days until a series of daily balances reaches zero at its mean rate; None if it grows."""
    if len(balances) < 2:
        return None
    rate = (balances[-1] - balances[0]) / (len(balances) - 1)
    if rate >= 0:
        return None
    return int(balances[-1] // -rate)
