from decimal import Decimal

import pytest

from abtest import format as fmt


def test_a_percentage_has_the_decimals_that_its_error_bears():
    assert fmt.signed(0.0123, fmt.digits(0.001)) == "+1.23 %"
    assert fmt.signed(-0.5, fmt.digits(0.2)).startswith("−50")


def test_what_is_not_known_is_a_dash():
    assert {fmt.signed(None), fmt.share(None), fmt.value(None, "s"), fmt.number(None)} == {fmt.DASH}


def test_moments_are_told_on_the_experiments_own_clock():
    assert fmt.instant(0, 8 * 3_600_000).startswith("1970-01-01 08:00")
    assert fmt.zone(0) in fmt.instant(0)


def test_lists_read_as_a_sentence():
    assert (fmt.listed(["a"]), fmt.listed(["a", "b"])) == ("a", "a and b")


@pytest.mark.parametrize("alpha", [0.05, 0.1 / 3, 1e-3, 1e-6, 1.25e-9, 1e-12, 1e-15])
def test_a_level_never_reads_as_certain_and_keeps_two_digits_of_what_it_misses(alpha):
    shown = fmt.level(alpha)
    assert 100 - Decimal(shown.removesuffix(" %")) == pytest.approx(Decimal(repr(100 * alpha)), rel=Decimal("0.05"))


def test_counts_agree_with_their_nouns():
    assert [fmt.counted(n, "value") for n in (0, 1, 2, 1000)] == ["0 values", "1 value", "2 values", "1,000 values"]
