"""Words: slugs, cases, counting, distances."""


def slug(text, limit=None):
    """'Hello, World!' -> 'hello-world'; cut at a dash so that it keeps within `limit`."""
    made = ""
    for character in text.lower():
        if character.isalnum():
            made += character
        elif made and made[-1] != "-":
            made += "-"
    made = made.strip("-")
    if limit is not None and len(made) > limit:
        cut = made.rfind("-", 0, limit + 1)
        made = made[:cut] if cut > 0 else made[:limit]
    return made


def snake(name):
    """'HTTPServerName2' -> 'http_server_name2'."""
    out = ""
    for i, character in enumerate(name):
        before = name[i - 1] if i > 0 else ""
        after = name[i + 1] if i + 1 < len(name) else ""
        if character.isupper() and before and before != "_":
            if not before.isupper() or after.islower():
                out += "_"
        out += character.lower()
    return out


def count_words(text, shortest=1, stop=()):
    """[(word, times)], the most frequent first, then by the alphabet."""
    counts = {}
    for raw in text.lower().split():
        word = raw.strip(".,;:!?()'\"")
        if len(word) >= shortest and word not in stop:
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def distance(a, b):
    """Edits (insert, delete, replace) between two words."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            cost = 0 if x == y else 1
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + cost)
    return row[-1]


def closest(word, candidates, most=2):
    """The candidate with the fewest edits, at most `most`, else None; the first of equals."""
    best = None
    fewest = most + 1
    for candidate in candidates:
        edits = distance(word, candidate)
        if edits < fewest:
            best, fewest = candidate, edits
    return best


def common_prefix(words):
    """The longest text that all words begin with."""
    if not words:
        return ""
    first, last = min(words), max(words)
    length = 0
    while length < len(first) and first[length] == last[length]:
        length += 1
    return first[:length]
