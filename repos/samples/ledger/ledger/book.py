"""The book: named accounts, balanced postings, undo."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Posting:
    """One balanced posting: amounts by account name, which add up to zero."""

    day: str
    text: str
    amounts: dict = field(default_factory=dict)

    def touches(self, account):
        """Whether the posting changes an account or one below it."""
        prefix = account + ":"
        for name, cents in self.amounts.items():
            if cents != 0 and (name == account or name.startswith(prefix)):
                return True
        return False


class Book:
    """Postings in order of their day; accounts are paths such as 'assets:bank'."""

    def __init__(self):
        self.postings = []
        self.closed = set()

    def post(self, day, text, **amounts):
        """Add a posting, keeping days in order; a double underscore stands for ':'."""
        named = {name.replace("__", ":"): cents for name, cents in amounts.items()}
        if len(named) < 2 or sum(named.values()) != 0:
            raise ValueError(f"posting does not balance: {text}")
        for name in named:
            if name in self.closed:
                raise ValueError(f"account is closed: {name}")
        posting = Posting(day, text, named)
        at = len(self.postings)
        while at > 0 and self.postings[at - 1].day > day:
            at -= 1
        self.postings.insert(at, posting)
        return posting

    def balance(self, account, until=None):
        """Sum of an account and those below it, up to and including a day."""
        total = 0
        for posting in self.postings:
            if until is not None and posting.day > until:
                break
            for name, cents in posting.amounts.items():
                if name == account or name.startswith(account + ":"):
                    total += cents
        return total

    def accounts(self, depth=None):
        """Account names in order, cut to `depth` parts when it is given."""
        names = set()
        for posting in self.postings:
            for name in posting.amounts:
                parts = name.split(":")
                names.add(":".join(parts[:depth]))
        return sorted(names)

    def close(self, account):
        """Forbid further postings to an account, whose balance must be zero."""
        left = self.balance(account)
        if left != 0:
            raise ValueError(f"{account} still holds {left}")
        self.closed.add(account)

    def undo(self, count=1):
        """Take back the last postings; returns them, the latest first."""
        if count < 0 or count > len(self.postings):
            raise ValueError(f"cannot undo {count} of {len(self.postings)}")
        taken = []
        for _ in range(count):
            taken.append(self.postings.pop())
        return taken
