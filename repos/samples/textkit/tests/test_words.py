import unittest

from textkit.words import closest, common_prefix, count_words, distance, slug, snake


class SlugTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(slug("Hello, World!"), "hello-world")

    def test_ends(self):
        self.assertEqual(slug("  (a) -- b  "), "a-b")

    def test_limit_at_a_dash(self):
        self.assertEqual(slug("one two three", limit=9), "one-two")
        self.assertEqual(slug("one two three", limit=7), "one-two")
        self.assertEqual(slug("one two", limit=7), "one-two")

    def test_limit_inside_a_word(self):
        self.assertEqual(slug("abcdefgh", limit=5), "abcde")


class SnakeTest(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(snake("serverName"), "server_name")

    def test_acronym(self):
        self.assertEqual(snake("HTTPServerName2"), "http_server_name2")

    def test_kept(self):
        self.assertEqual(snake("already_Snake"), "already_snake")


class CountTest(unittest.TestCase):
    def test_order(self):
        self.assertEqual(
            count_words("b a, B. c! a b"), [("b", 3), ("a", 2), ("c", 1)]
        )

    def test_ties_by_alphabet(self):
        self.assertEqual(count_words("z y z y"), [("y", 2), ("z", 2)])

    def test_shortest_and_stop(self):
        self.assertEqual(count_words("the cat is in the hat", 3, stop=("the",)),
                         [("cat", 1), ("hat", 1)])

    def test_marks_alone_are_no_words(self):
        self.assertEqual(count_words("a ... !"), [("a", 1)])


class DistanceTest(unittest.TestCase):
    def test_known(self):
        self.assertEqual(distance("kitten", "sitting"), 3)
        self.assertEqual(distance("flaw", "lawn"), 2)

    def test_empty(self):
        self.assertEqual(distance("", "abc"), 3)
        self.assertEqual(distance("abc", ""), 3)
        self.assertEqual(distance("", ""), 0)

    def test_closest(self):
        self.assertEqual(closest("colour", ["color", "collar"]), "color")
        self.assertEqual(closest("cat", ["bat", "hat"]), "bat")

    def test_closest_too_far(self):
        self.assertIsNone(closest("abc", ["xyz"]))
        self.assertIsNone(closest("ab", ["abcd"], most=1))
        self.assertEqual(closest("ab", ["abcd"], most=2), "abcd")


class PrefixTest(unittest.TestCase):
    def test_common(self):
        self.assertEqual(common_prefix(["interval", "internet", "into"]), "int")

    def test_one_is_the_prefix(self):
        self.assertEqual(common_prefix(["ab", "abc"]), "ab")

    def test_none(self):
        self.assertEqual(common_prefix([]), "")
        self.assertEqual(common_prefix(["a", "b"]), "")
