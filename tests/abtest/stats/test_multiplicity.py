import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from abtest.stats.multiplicity import adjust

METHODS = {"holm": "holm", "bh": "fdr_bh"}


@pytest.mark.parametrize("correction", METHODS)
@pytest.mark.parametrize("seed", range(20))
def test_adjusted_p_values_are_those_of_statsmodels(correction, seed):
    random = np.random.default_rng(seed)
    p_values = random.beta(0.4, 2, random.integers(1, 12)).round(2)  # rounding makes ties
    found = adjust(dict(enumerate(p_values.tolist())), correction)
    expected = multipletests(p_values, method=METHODS[correction])[1]
    np.testing.assert_allclose([found[i] for i in range(len(p_values))], expected, rtol=1e-12)


def test_a_metric_without_a_p_value_is_no_test():
    assert adjust({"a": 0.02, "b": None}, "holm") == {"a": 0.02, "b": None}
    assert adjust({"a": None}, "bh") == {"a": None}
    assert adjust({}, "holm") == {}


def test_none_leaves_p_values_as_they_are():
    assert adjust({"a": 0.02, "b": 0.5}, "none") == {"a": 0.02, "b": 0.5}


def test_tiny_p_values_keep_their_digits():
    assert adjust({"a": 1e-300, "b": 0.5}, "holm")["a"] == 2e-300


def test_what_is_no_p_value_or_no_correction_is_refused():
    for p_value in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjust({"a": p_value}, "holm")
    with pytest.raises(ValueError, match="allowed are holm, bh and none"):
        adjust({"a": 0.1}, "sidak")
