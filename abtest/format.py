"""Numbers as a person reads them. The JSON beside the page keeps every digit."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from contracts.config.calendar import Calendar

DASH = "—"
MINUS = "−"  # as wide as a plus; a hyphen is not


def digits(half_width: float) -> int:
    """Decimals of a percentage that are worth showing beside an interval of `half_width` (a fraction).

    >>> [digits(x) for x in (0.0005, 0.004, 0.04, 0.4)]
    [3, 2, 1, 0]
    """
    return 3 if half_width < 0.001 else 2 if half_width < 0.01 else 1 if half_width < 0.1 else 0


def signed(fraction: float | None, decimals: int = 2) -> str:
    """A relative difference in percent.

    >>> signed(0.0123), signed(-0.5, 0), signed(None)
    ('+1.23 %', '−50 %', '—')
    """
    if fraction is None:
        return DASH
    sign = MINUS if fraction < 0 else "+" if fraction > 0 else ""  # also where it rounds to 0: the side of zero matters
    return f"{sign}{abs(100 * fraction):,.{decimals}f} %"


def share(fraction: float | None, decimals: int = 1) -> str:
    """A share in percent.

    >>> share(0.5), share(None)
    ('50.0 %', '—')
    """
    return DASH if fraction is None else f"{100 * fraction:,.{decimals}f} %"


def least(fraction: float) -> str:
    """An effect that a plan asks for, in percent: one decimal where that says it all, else three digits.

    >>> least(0.01), least(0.0125), least(0.0001), least(1e-9), least(20.0)
    ('1.0 %', '1.25 %', '0.01 %', '1e-07 %', '2,000.0 %')
    """
    if math.isclose(round(100 * fraction, 1), 100 * fraction, rel_tol=1e-6):
        return share(fraction)
    return f"{100 * fraction:.3g} %" if fraction < 1 else share(fraction)


def value(number: float | None, unit: str, std_error: float | None = None) -> str:
    """A metric's value: a rate with three significant digits or two decimals, others with three significant digits.

    With more where the last of them is coarser than the standard error, which is in the value's own unit: two values
    that differ by several standard errors do not read as the same.

    >>> value(0.3456, "%"), value(0.00123, "%"), value(12.34, "s"), value(1234.5, "s"), value(None, "s")
    ('34.56 %', '0.123 %', '12.3 s', '1,234 s', '—')
    >>> value(0.19018, ""), value(0.00001234, ""), value(-4.321, ""), value(0.0, "s")
    ('0.190', '0.0000123', '−4.32', '0.00 s')
    >>> value(12.341, "s", 0.004), value(12.341, "s", 0.4), value(0.20014, "%", 0.00003), value(0.2, "", 0.0)
    ('12.341 s', '12.3 s', '20.014 %', '0.200')
    """
    if number is None:
        return DASH
    if unit == "%":
        usual = 2 if number == 0 or number >= 0.01 else 3 if number >= 0.0001 else 5
        return share(number, max(usual, decimals_for(100 * std_error if std_error else None)))
    shown, decimals = significant(number), decimals_for(std_error)
    has = len(shown.partition(".")[2])
    return f"{f'{number:,.{decimals}f}'.replace('-', MINUS) if decimals > has else shown} {unit}".rstrip()


def decimals_for(std_error: float | None) -> int:
    """Decimals whose last digit is no coarser than a standard error, 9 at most; 0 where there is none.

    >>> [decimals_for(error) for error in (0.004, 0.1, 25.0, 1e-30, 0.0, None)]
    [3, 1, 0, 9, 0, 0]
    """
    if not std_error or not math.isfinite(std_error):
        return 0
    return min(max(-math.floor(math.log10(std_error)), 0), 9)


def significant(number: float, digits: int = 3) -> str:
    """With so many significant digits, but every digit before the point.

    >>> significant(0.19018), significant(123456.7), significant(-0.05)
    ('0.190', '123,457', '−0.0500')
    """
    size = math.floor(math.log10(abs(number))) if number and math.isfinite(number) else 0
    return f"{number:,.{max(digits - 1 - size, 0)}f}".replace("-", MINUS)


def difference(number: float, unit: str) -> str:
    """A difference in a metric's unit, of a rate in percentage points.

    >>> difference(0.0123, "%"), difference(-2.5, "s"), difference(0.0, "")
    ('+1.23 points', '−2.50 s', '0.00')
    """
    shown = significant(100 * number) + " points" if unit == "%" else f"{significant(number)} {unit}".rstrip()
    return f"+{shown}" if number > 0 else shown


def p_value(p: float | None) -> str:
    """A p-value without its leading zero, as journals write it.

    >>> p_value(0.0031), p_value(1e-20), p_value(0.9999), p_value(None)
    ('p = .003', 'p < .001', 'p > .999', '—')
    """
    if p is None:
        return DASH
    if p < 0.001:
        return "p < .001"
    return "p > .999" if p > 0.999 else f"p = {p:.3f}".replace("0.", ".", 1)


def threshold(p: float) -> str:
    """A significance threshold.

    >>> threshold(0.001)
    'p < .001'
    """
    return f"p < {p:g}".replace("0.", ".", 1)


def number(count: float | None) -> str:
    """A count with thousands apart.

    >>> number(12345), number(None)
    ('12,345', '—')
    """
    return DASH if count is None else f"{count:,.0f}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count and what is counted.

    >>> counted(1, "row"), counted(1200, "row"), counted(0, "user"), counted(2, "day is", "days are")
    ('1 row', '1,200 rows', '0 users', '2 days are')
    """
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def part(count: int, total: int, one: str, verbs: tuple[str, str] = ("", "")) -> str:
    """So many of so many, with the share, and a verb for one and for several.

    >>> part(1, 200, "row", ("is late", "are late")), part(0, 1, "row", ("is late", "are late"))
    ('1 of 200 rows (0.50 %) is late', '0 of 1 row are late')
    """
    of = f" ({share(count / total, 2)})" if count else ""
    return f"{number(count)} of {counted(total, one)}{of} {verbs[0] if count == 1 else verbs[1]}".rstrip()


def few_events(effective: float) -> str:
    """How many effective events there are, where they are too few; below 10 with two digits: 0.55 is not 1.

    >>> few_events(1.0), few_events(0.55), few_events(19.4), few_events(1e-9), few_events(0.0)
    ('only 1 effective event', 'only 0.55 effective events', 'only 19 effective events', \
'less than 0.01 effective events', 'no effective events')
    """
    if not effective > 0:
        return "no effective events"
    if effective < 0.01:
        return "less than 0.01 effective events"
    shown = f"{effective:.2g}" if effective < 10 else f"{effective:,.0f}"
    return f"only {shown} effective event{'' if shown == '1' else 's'}"


def words(name: str) -> str:
    """A count's name as text.

    >>> words("feedback_without_exposure")
    'feedback without exposure'
    """
    return name.replace("_", " ")


def level(alpha: float) -> str:
    """How surely an interval at error level `alpha` covers.

    Two digits of `alpha` are kept however small it is, so that no level reads as certain.

    >>> level(0.05), level(0.001), level(0.05 / 3), level(1e-12), level(0.00012345)
    ('95 %', '99.9 %', '98.3333 %', '99.9999999999 %', '99.9877 %')
    """
    covered = 100 * (1 - Decimal(repr(alpha)))
    digits = max(4, 1 - Decimal(repr(100 * alpha)).adjusted())
    return f"{covered:.{digits}f}".rstrip("0").rstrip(".") + " %"


def instant(at_ms: int, offset_ms: int = 0, zone_name: str | None = None) -> str:
    """A moment on the clock that is `offset_ms` ahead of UTC, or on that of a named zone, to the minute.

    >>> instant(1_772_294_400_000, 28_800_000)
    '2026-03-01 00:00 UTC+08:00'
    >>> instant(1_772_294_400_000, zone_name="Europe/Berlin")
    '2026-02-28 17:00 Europe/Berlin'
    """
    ahead_ms = Calendar(offset_ms, zone_name).offset_at_ms(at_ms)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms + ahead_ms)
    return f"{moment:%Y-%m-%d %H:%M} {zone(offset_ms, zone_name)}"


def zone(offset_ms: int, name: str | None = None) -> str:
    """A zone by its name, or an offset from UTC.

    >>> zone(0), zone(28_800_000), zone(-12_600_000)
    ('UTC', 'UTC+08:00', 'UTC−03:30')
    """
    if name is not None:
        return name
    if offset_ms == 0:
        return "UTC"
    minutes = abs(offset_ms) // 60_000
    return f"UTC{MINUS if offset_ms < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}"


def listed(parts: Sequence[str]) -> str:
    """Several things in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', '')
    """
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
