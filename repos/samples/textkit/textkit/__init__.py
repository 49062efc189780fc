"""Plain-text helpers: layout, words, small parsers."""
