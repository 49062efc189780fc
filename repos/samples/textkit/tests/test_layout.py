import unittest

from textkit.layout import box, columns, dedent, truncate, wrap


class WrapTest(unittest.TestCase):
    def test_fits_exactly(self):
        self.assertEqual(wrap("aa bb cc", 5), ["aa bb", "cc"])

    def test_one_too_long(self):
        self.assertEqual(wrap("aa bb cc", 4), ["aa", "bb", "cc"])

    def test_long_word_stands_alone(self):
        self.assertEqual(wrap("a verylongword b", 5), ["a", "verylongword", "b"])

    def test_indent(self):
        self.assertEqual(wrap("one two three four", 9, indent=2), ["one two", "  three", "  four"])

    def test_nothing(self):
        self.assertEqual(wrap("   "), [])


class DedentTest(unittest.TestCase):
    def test_shared_margin(self):
        self.assertEqual(dedent("  a\n    b\n  c"), "a\n  b\nc")

    def test_blank_lines_do_not_count(self):
        self.assertEqual(dedent("    a\n \n    b"), "a\n\nb")

    def test_tabs(self):
        self.assertEqual(dedent("\ta\n\t\tb"), "a\n    b")
        self.assertEqual(dedent("\ta\n  b", tab=2), "a\nb")


class ColumnsTest(unittest.TestCase):
    def test_left(self):
        self.assertEqual(columns([("a", "bb"), ("ccc", "d")]), ["a    bb", "ccc  d"])

    def test_right(self):
        self.assertEqual(columns([("a", 5), ("b", 50)], gap=1, right=(1,)), ["a  5", "b 50"])

    def test_uneven_rows(self):
        self.assertEqual(columns([("a",), ("b", "c")]), ["a", "b  c"])


class BoxTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(box(["ab", "c"]), ["+----+", "| ab |", "| c  |", "+----+"])

    def test_title(self):
        self.assertEqual(box(["x"], "Hi"), ["+ Hi --+", "| x    |", "+------+"])


class TruncateTest(unittest.TestCase):
    def test_short_text_is_kept(self):
        self.assertEqual(truncate("hello", 5), "hello")

    def test_cut_after_a_word(self):
        self.assertEqual(truncate("hello wide world", 12), "hello...")
        self.assertEqual(truncate("hello wide world", 13), "hello wide...")

    def test_one_long_word(self):
        self.assertEqual(truncate("abcdefghij", 8), "abcde...")

    def test_no_room(self):
        self.assertEqual(truncate("abcdef", 2), "..")
