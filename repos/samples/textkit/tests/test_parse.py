import unittest

from textkit.parse import duration, fields, ranges, settings, show_duration


class RangesTest(unittest.TestCase):
    def test_ranges(self):
        self.assertEqual(ranges("1-3,7"), [1, 2, 3, 7])

    def test_overlap(self):
        self.assertEqual(ranges("4-5, 3-4, 5"), [3, 4, 5])

    def test_refused(self):
        for text in ("3-1", "1-1001", "a", ""):
            with self.subTest(text), self.assertRaises(ValueError):
                ranges(text)

    def test_limit(self):
        self.assertEqual(len(ranges("1-1000")), 1000)
        with self.assertRaises(ValueError):
            ranges("1-4", limit=3)


class DurationTest(unittest.TestCase):
    def test_units(self):
        self.assertEqual(duration("1h30m"), 5400)
        self.assertEqual(duration("2d1s"), 172801)

    def test_plain_number(self):
        self.assertEqual(duration("90"), 90)
        self.assertEqual(duration("1m30"), 90)

    def test_refused(self):
        for text in ("h", "5x", "1h m"):
            with self.assertRaises(ValueError):
                duration(text)

    def test_show(self):
        self.assertEqual(show_duration(5405), "1h30m")
        self.assertEqual(show_duration(59), "59s")
        self.assertEqual(show_duration(86400 + 3600 + 60), "1d1h")

    def test_show_leaves_out_what_is_zero(self):
        self.assertEqual(show_duration(3605), "1h")
        self.assertEqual(show_duration(3605, parts=3), "1h5s")
        self.assertEqual(show_duration(0), "0s")


class FieldsTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(fields("a,b,,c"), ["a", "b", "", "c"])

    def test_quoted(self):
        self.assertEqual(fields('a,"b,c",d'), ["a", "b,c", "d"])

    def test_doubled_quote(self):
        self.assertEqual(fields('"say ""hi""",x'), ['say "hi"', "x"])

    def test_other_separator(self):
        self.assertEqual(fields("a;'b;c'", ";", "'"), ["a", "b;c"])

    def test_open_quote(self):
        with self.assertRaises(ValueError):
            fields('a,"b')


class SettingsTest(unittest.TestCase):
    def test_sections(self):
        text = "top = 1\n[first]\nkey = a=b  # note\n\n[ second ]\nkey=\n"
        self.assertEqual(
            settings(text), {"top": "1", "first.key": "a=b", "second.key": ""}
        )

    def test_other_comment(self):
        self.assertEqual(settings("a = #1 ; x", comment=";"), {"a": "#1"})

    def test_error_names_the_line(self):
        with self.assertRaisesRegex(ValueError, "line 3"):
            settings("# c\na = 1\nbroken\n")
        with self.assertRaisesRegex(ValueError, "line 1"):
            settings("= 1")


if __name__ == "__main__":
    unittest.main()
