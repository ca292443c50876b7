"""Statistics against closed forms and scipy's own test."""

import math

import numpy as np
import pytest
from scipy import stats

from sslrun.report.paired import paired, spread


def test_mean_and_sample_deviation():
    assert spread([1.0, 3.0]) == (2.0, math.sqrt(2))
    assert spread([0.4]) == (0.4, None)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_intervals_are_those_of_the_paired_t_test(n):
    a, b = np.random.default_rng(n).normal(size=(2, n))
    found = paired(dict(enumerate(a)), dict(enumerate(b)))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.n == n and math.isclose(found.mean, (a - b).mean())
    assert math.isclose(found.low, low, rel_tol=1e-9) and math.isclose(found.high, high, rel_tol=1e-9)


def test_two_pairs_by_hand():
    """Differences 1 and 3: mean 2, standard error 1, and t at 97.5 % with one degree of freedom is 12.706."""
    found = paired({0: 1.0, 1: 3.0}, {0: 0.0, 1: 0.0})
    assert found.low == pytest.approx(2 - 12.7062, abs=1e-4) and found.high == pytest.approx(2 + 12.7062, abs=1e-4)


def test_only_seeds_of_both_sides_count():
    found = paired({0: 1.0, 1: 2.0, 2: 99.0}, {1: 1.0, 0: 0.5, 7: -99.0})
    assert found.n == 2 and found.mean == 0.75


def test_one_pair_has_no_interval_and_none_has_nothing():
    found = paired({0: 1.0}, {0: 3.0})
    assert (found.n, found.mean, found.low, found.high) == (1, -2.0, None, None)
    assert not found.above and not found.below
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_above_and_below():
    assert paired({0: 1.0, 1: 1.1, 2: 1.0}, {0: 0.0, 1: 0.0, 2: 0.1}).above
    assert paired({0: 0.0, 1: 0.0, 2: 0.1}, {0: 1.0, 1: 1.1, 2: 1.0}).below
    wide = paired({0: 1.0, 1: -1.0}, {0: 0.0, 1: 0.0})
    assert not wide.above and not wide.below
