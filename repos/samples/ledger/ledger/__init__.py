"""A small double-entry ledger: amounts in cents, accounts, postings, reports."""

from ledger.book import Book, Posting
from ledger.money import format_cents, parse_cents, split_cents

__all__ = ["Book", "Posting", "format_cents", "parse_cents", "split_cents"]
