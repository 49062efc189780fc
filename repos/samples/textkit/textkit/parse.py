"""Small parsers: ranges, sizes, durations, quoted fields."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def ranges(text, limit=1000):
    """'1-3,7' -> [1, 2, 3, 7], in order, without repetition."""
    found = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low = int(first)
        high = int(last) if dash else low
        if low > high or high - low >= limit:
            raise ValueError(f"not a range: {part.strip()}")
        found.update(range(low, high + 1))
    return sorted(found)


def duration(text):
    """'1h30m' -> 5400 seconds; a number without a unit counts as seconds."""
    total = 0
    digits = ""
    for character in text:
        if character.isdigit():
            digits += character
        elif character in UNITS and digits:
            total += int(digits) * UNITS[character]
            digits = ""
        else:
            raise ValueError(f"not a duration: {text}")
    if digits:
        total += int(digits)
    return total


def show_duration(seconds, parts=2):
    """5405 -> '1h30m': the `parts` largest units, cut rather than rounded."""
    shown = []
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, UNITS[unit])
        if count > 0 and len(shown) < parts:
            shown.append(f"{count}{unit}")
        elif shown and len(shown) < parts:
            parts -= 1
    return "".join(shown) or "0s"


def fields(line, separator=",", quote='"'):
    """Fields of a line; quoted ones may hold the separator, a doubled quote stands for one."""
    out = [""]
    quoted = False
    i = 0
    while i < len(line):
        character = line[i]
        if character == quote and quoted and line[i + 1 : i + 2] == quote:
            out[-1] += quote
            i += 1
        elif character == quote:
            quoted = not quoted
        elif character == separator and not quoted:
            out.append("")
        else:
            out[-1] += character
        i += 1
    if quoted:
        raise ValueError("a quote is not closed")
    return out


def settings(text, comment="#"):
    """{'section.key': value} of lines 'key = value' under [section] headings."""
    found = {}
    section = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split(comment, 1)[0].strip()
        if not line:
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip() + "."
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"line {number}: expected key = value")
        found[section + key.strip()] = value.strip()
    return found
