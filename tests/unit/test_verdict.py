"""What a soak concludes from its samples."""

from __future__ import annotations

import math

import pytest

from ops.bench.verdict import bucket_quantile, figures, first_and_last_third, slope

TEXT = """# HELP x
# TYPE x histogram
x_bucket{le="0.1"} 10.0
x_bucket{le="1.0"} 20.0
x_bucket{le="+Inf"} 20.0
y 3.0
"""


def test_a_slope_is_found_beneath_outliers_and_a_flat_line_has_none() -> None:
    rising = [(float(x), 2.0 * x) for x in range(20)]
    rising[5], rising[11] = (5.0, 900.0), (11.0, -900.0)
    assert slope(rising) == pytest.approx(2.0, rel=0.05)
    assert slope([(float(x), 7.0 + (x % 2)) for x in range(20)]) == pytest.approx(0.0, abs=0.06)
    assert slope([(1.0, 1.0)]) == 0.0


def test_a_quantile_is_of_what_was_added_between_two_samples() -> None:
    before = figures(TEXT)
    after = before | {'x_bucket{le="0.1"}': 10.0, 'x_bucket{le="1.0"}': 120.0, 'x_bucket{le="+Inf"}': 120.0}
    assert bucket_quantile(before, after, "x", 0.5) == pytest.approx(0.55)
    assert math.isnan(bucket_quantile(before, before, "x", 0.5))
    assert before["y"] == 3.0


def test_thirds_are_the_first_and_the_last() -> None:
    points = [(float(x), float(x)) for x in range(30)]
    assert first_and_last_third(points, 0.0, 30.0, 1.0) == (9.0, 29.0)
