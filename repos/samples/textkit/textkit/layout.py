"""Layout of plain text: wrapping, indenting, columns, boxes."""


def wrap(text, width=40, indent=0):
    """Lines of at most `width` characters; later lines are indented, long words stand alone."""
    lines = []
    line = ""
    for word in text.split():
        if line.strip() and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = " " * indent + word
        elif line:
            line += " " + word
        else:
            line = word
    if line:
        lines.append(line)
    return lines


def dedent(text, tab=4):
    """Take the indentation that all non-blank lines share off every line."""
    lines = text.expandtabs(tab).split("\n")
    margin = None
    for line in lines:
        if line.strip():
            depth = len(line) - len(line.lstrip(" "))
            margin = depth if margin is None else min(margin, depth)
    return "\n".join(line[margin or 0 :] if line.strip() else "" for line in lines)


def columns(rows, gap=2, right=()):
    """Rows of cells as aligned lines; columns whose number is in `right` are right-aligned."""
    widths = []
    for row in rows:
        for i, cell in enumerate(row):
            if i == len(widths):
                widths.append(0)
            widths[i] = max(widths[i], len(str(cell)))
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            text = str(cell)
            cells.append(text.rjust(widths[i]) if i in right else text.ljust(widths[i]))
        lines.append((" " * gap).join(cells).rstrip())
    return lines


def box(lines, title=""):
    """A frame of +, - and | around lines, with the title in the upper edge."""
    width = max([len(line) for line in lines] + [len(title) + 2 if title else 0])
    head = f" {title} " if title else ""
    framed = ["+" + head + "-" * (width + 2 - len(head)) + "+"]
    for line in lines:
        framed.append("| " + line + " " * (width - len(line)) + " |")
    framed.append("+" + "-" * (width + 2) + "+")
    return framed


def truncate(text, limit, mark="..."):
    """At most `limit` characters, cut after a whole word where there is one."""
    if len(text) <= limit:
        return text
    room = limit - len(mark)
    if room <= 0:
        return mark[:limit]
    head = text[:room]
    if text[room] != " " and " " in head:
        head = head[: head.rindex(" ")]
    return head.rstrip() + mark
