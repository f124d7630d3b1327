"""Exact intervals of a share: known ones, and those of the beta distribution."""

import numpy as np
import pytest

from destseg.metrics.intervals import share_interval


@pytest.mark.parametrize(
    ("count", "trials", "expected"),
    [
        (0, 1, (0.0, 0.975)),
        (1, 1, (0.025, 1.0)),
        (0, 10, (0.0, 0.308497)),  # 1 - 0.025 ** 0.1
        (3, 20, (0.032071, 0.378927)),
        (5, 10, (0.187086, 0.812914)),
        (20, 20, (0.831567, 1.0)),
    ],
)
def test_known_intervals_of_a_share(count, trials, expected):
    assert share_interval(count, trials) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_the_beta_distribution(level):
    beta, generator = pytest.importorskip("scipy.stats").beta, np.random.default_rng(0)
    for trials in (2, 7, 50, 999, 5000):
        count, tail = int(generator.integers(1, trials)), (1 - level) / 2
        expected = beta.ppf(tail, count, trials - count + 1), beta.ppf(1 - tail, count + 1, trials - count)
        assert share_interval(count, trials, level) == pytest.approx(expected, rel=1e-8)
