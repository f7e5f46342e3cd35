"""Read the one number in an answer, in whatever notation; what is ambiguous is none."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal, InvalidOperation
from functools import reduce

Bounds = tuple[float, float]

_PLAIN = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe58\ufe63\uff0d\u207b", "-")
    | dict.fromkeys("\u2018\u2019\u02bc\uff07`\u066c", "'")
    | {"\uff0c": ",", "\uff0e": ".", "\u066b": ".", "\uff05": "%", "\u066a": "%", "\uff0b": "+"}
)
_BODY = re.compile(
    r"""(?:\d{1,3}(?:\ \d{3})+(?!\d)(?:[.,]\d+)? | \d+(?:[.,'_]\d+)* | (?<![^\W_])[.,]\d+)
    (?:[eE][-+]?\d+(?!\w))?""",
    re.VERBOSE,
)
_CURRENCY = re.compile(
    r"(?:(?:\b[A-Z]{1,3})?[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba]|\bRs\.?|\b[A-Z]{3}) ?$"
)
_SIGN = re.compile(r"(?:(?P<sign>[-+])(?P<gap> ?)|(?P<word>\b(?:minus|negative) ))$", re.IGNORECASE)
_COMPARISON = re.compile(
    r"(?:[<>\u2264\u2265]=?|\b(?:more|less|fewer|greater|other) than|\bat (?:least|most)|\bup to|"
    r"\b(?:over|under|below|above)) ?$",
    re.IGNORECASE,
)
_PERCENT = re.compile(r" ?(?:%|(?:percent|per cent|pct|prozent)\b)", re.IGNORECASE)
_WORD = re.compile(r"( ?)([^\W\d_]+)")
_UNREADABLE_AFTER = re.compile(r"-(?!\w)|\+|\u2030")
_FRACTION_WORD = re.compile(r"\b(?:half|halves|quarters?|thirds?)\b", re.IGNORECASE)
_OUT_OF = re.compile(r" ?(?:/|\bout of\b|\bof\b) ?", re.IGNORECASE)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}")
_ONLY_NUMBER = re.compile(r"\W*\d[\d.,' ]*\W*")
_MAGNITUDES = {
    "k": 10**3, "thousand": 10**3, "tsd": 10**3, "lakh": 10**5, "lakhs": 10**5, "mio": 10**6,
    "million": 10**6, "millions": 10**6, "crore": 10**7, "crores": 10**7, "bn": 10**9,
    "billion": 10**9, "billions": 10**9, "mrd": 10**9, "hundred": 100, "dozen": 12,
}  # fmt: skip
_UNCLEAR_UNITS = frozenset("KMBTG")
"""Kelvin or thousand, bytes or billion: without a blank K and M are a thousand and a million."""
_MAX_DIGITS = 300
_MAX_CHARS = 1_000


def parse_number(
    answer: str, bounds: Bounds | None = None, step: float | None = None
) -> str | None:
    """Return the only number that an answer holds, in canonical form; None for none.

    Thousands may be separated by commas, points, blanks or apostrophes, digits may be of any
    script. A sign, a currency, a magnitude ("3k", "2 million") and a percent sign count; a share
    is asked for where the bounds end at 1. Where a notation has two readings, the bounds and the
    step decide; if they leave both, there is none. Neither is there for two different numbers, a
    comparison ("> 5"), a fraction, or a number outside the bounds.

    Args:
        bounds: the least and the greatest value.
        step: the distance of possible values.
    """
    if len(answer) > _MAX_CHARS:
        return None
    text = _normalized(answer)
    first, _, rest = text.partition("\n")
    if rest and _ONLY_NUMBER.fullmatch(first):
        text = first  # a reason follows
    if _FRACTION_WORD.search(text) or any(unicodedata.category(c) in ("No", "Nl") for c in text):
        return None
    found = list(_BODY.finditer(text))
    if len(found) == 2 and bounds and _OUT_OF.fullmatch(text, found[0].end(), found[1].start()):
        found = found[: 1 if Decimal(str(bounds[1])) in _readings(found[1].group()) else 2]
    if not found:
        return None
    low, high = bounds or (-math.inf, math.inf)
    values = reduce(set.__and__, (_values(text, match, (low, high)) for match in found))
    values = {value for value in values if low <= value <= high}
    if len(values) > 1 and step:
        basis = Decimal(str(low)) if math.isfinite(low) else Decimal(0)
        values = {value for value in values if (value - basis) % Decimal(str(step)) == 0}
    return _canonical(values.pop()) if len(values) == 1 else None


def _normalized(answer: str) -> str:
    """Return an answer with plain signs, blanks and decimal digits, markup left out."""
    text = "".join(
        str(unicodedata.decimal(char)) if char.isdecimal() else char
        for char in answer.translate(_PLAIN)
    )
    lines = (" ".join(re.sub(r"[*`\"]", "", line).split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _values(text: str, match: re.Match[str], bounds: Bounds) -> set[Decimal]:
    """Return all that a number can mean where it stands."""
    before, after = text[: match.start()], text[match.end() :]
    has_currency = _CURRENCY.search(before) is not None
    before = _CURRENCY.sub("", before)
    values = _readings(match.group())
    if before[-1:].isalpha() or _COMPARISON.search(before) or _UNREADABLE_AFTER.match(after):
        return set()
    if sign := _SIGN.search(before):
        rest = before[: sign.start()]
        if sign["word"] or (sign["sign"] == "-" and not sign["gap"]):
            if sign["sign"] and rest[-1:].isalpha():
                return set()  # a name such as "Covid-19"
            values = {-value for value in values}
        elif sign["sign"] == "-" and not rest.rstrip():  # it may also begin a list
            values |= {-value for value in values}
    elif before.endswith("(") and after.startswith(")"):  # bookkeepers' minus
        values |= {-value for value in values}
    if _PERCENT.match(after):
        return {value / 100 for value in values} if bounds[1] <= 1 else values
    factor = _magnitude(after, has_currency=has_currency)
    return set() if factor is None else {value * factor for value in values}


def _magnitude(after: str, *, has_currency: bool) -> int | None:
    """Return what a number is multiplied with by the words after it; None if that is unclear."""
    factor, at = 1, 0
    while word := _WORD.match(after, at):
        blank, name = word.groups()
        if name == "m" and has_currency:
            return None
        if name in _UNCLEAR_UNITS:
            is_clear = name in "KM" and not blank
            return factor * (10**3 if name == "K" else 10**6) if is_clear else None
        if name.lower() not in _MAGNITUDES:
            break
        factor, at = factor * _MAGNITUDES[name.lower()], word.end()
    return factor


def _readings(body: str) -> set[Decimal]:
    """Return the values that digits and separators can stand for."""
    mantissa, _, exponent = body.lower().partition("e")
    written: set[str] = set()
    marks = set(re.findall(r"[ '_]", mantissa))
    if marks:  # always between thousands
        whole, *decimals = re.split("[.,]", mantissa)
        is_grouped = _GROUPED.fullmatch(re.sub(r"[ '_]", ",", whole))
        if len(marks) == 1 and len(decimals) < 2 and is_grouped:
            written = {f"{re.sub(r'[^0-9]', '', whole)}.{''.join(decimals) or 0}"}
    elif "," in mantissa and "." in mantissa:
        point = max(",.", key=mantissa.rfind)
        whole, _, fraction = mantissa.rpartition(point)
        if _GROUPED.fullmatch(whole.replace(".", ",")) and point not in whole:
            written = {f"{re.sub('[,.]', '', whole)}.{fraction}"}
    else:
        written = _by_one_mark(mantissa)
    found = set()
    for number in written:
        try:
            value = Decimal(f"{number}e{exponent or 0}")
        except InvalidOperation:
            continue
        if value.is_finite() and abs(value.adjusted()) < _MAX_DIGITS:
            found.add(value)
    return found


def _by_one_mark(mantissa: str) -> set[str]:
    """Return the readings of a number with commas alone, points alone, or neither.

    Once before exactly three digits a comma separates thousands; a point can be either.
    """
    decimal = mantissa.replace(",", ".")
    thousands = re.sub("[,.]", "", mantissa)
    if not _GROUPED.fullmatch(mantissa.replace(".", ",")) or mantissa.startswith("0"):
        return {f"0{decimal}"} if decimal.count(".") < 2 else set()
    if decimal.count(".") > 1 or "," in mantissa:
        return {thousands}
    return {decimal, thousands}


def _canonical(value: Decimal) -> str:
    """Return a number as people and JSON write it: "3" and not "3.0"."""
    if value == value.to_integral_value():
        return str(int(value))
    return format(value.normalize(), "f")
