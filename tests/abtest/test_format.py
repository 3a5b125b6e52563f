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
