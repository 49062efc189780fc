"""Amounts of money as whole cents: parsing, printing, splitting, interest."""


def parse_cents(text):
    """'1,234.5' -> 123450. A leading minus or parentheses mean a negative amount."""
    text = text.strip().replace(",", "")
    negative = text.startswith("-") or (text.startswith("(") and text.endswith(")"))
    text = text.strip("-()")
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdigit() or len(fraction) > 2:
        raise ValueError(f"not an amount: {text!r}")
    cents = int(whole or 0) * 100 + int(fraction.ljust(2, "0"))
    return -cents if negative else cents


def format_cents(cents, symbol="", group=True):
    """123450 -> '1,234.50'; the sign comes before the symbol."""
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    digits = str(whole)
    if group:
        parts = []
        while len(digits) > 3:
            parts.insert(0, digits[-3:])
            digits = digits[:-3]
        digits = ",".join([digits, *parts])
    return f"{sign}{symbol}{digits}.{rest:02d}"


def split_cents(cents, weights):
    """Shares in proportion to `weights` that add up to `cents` exactly.

    Cents that are left over go to the largest remainders, earlier shares first.
    """
    total = sum(weights)
    if total <= 0 or any(weight < 0 for weight in weights):
        raise ValueError("weights must be positive")
    shares = [cents * weight // total for weight in weights]
    remainders = [cents * weight % total for weight in weights]
    left = cents - sum(shares)
    order = sorted(range(len(weights)), key=lambda i: (-remainders[i], i))
    for i in order[:left]:
        shares[i] += 1
    return shares


def compound(cents, rate_percent, years, per_year=1):
    """Balance after compound interest, rounded to the nearest cent after each period."""
    balance = cents
    for _ in range(years * per_year):
        balance += round(balance * rate_percent / (100 * per_year))
    return balance


def round_to(cents, step=5):
    """Round to a multiple of `step`; a tie goes away from zero."""
    if step <= 0:
        raise ValueError("step must be positive")
    sign = -1 if cents < 0 else 1
    units, rest = divmod(abs(cents), step)
    if rest * 2 >= step:
        units += 1
    return sign * units * step
