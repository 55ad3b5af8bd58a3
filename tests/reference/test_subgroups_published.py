"""Charts of subgroups against published numbers.

Sources: the R package qcc 3.0, vignette "A quick tour of qcc" (pistonrings); Montgomery, Introduction to Statistical
Quality Control, tables 6.3 and 6.4 and examples 6.3 and 6.4, as printed by the R package qicharts2. The two tables of
piston rings differ in two values of sample 21.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.charts.xbar import textbook_means, textbook_sigma, textbook_spreads
from analytics.constants import c4, d2, d3

# inside diameter of piston rings, micrometres above 74 mm, 25 samples of 5 (qcc: pistonrings, trial)
RINGS = np.array([
    30, 2, 19, -8, 8, -5, -8, 1, 11, 4, -12, 24, 21, 5, 2, 2, -4, -7, 15, 9, -8, 7, 15, -11, 14, 9, -6, -3, -15, -7,
    -5, 6, -6, 0, 5, -15, 3, -7, 15, -12, 8, -5, 9, 5, 4, -2, 0, -10, 7, -5, -6, -2, -6, -5, -10, 4, 0, 7, 0, -4,
    -17, 2, -2, -3, 12, 6, -33, -6, 0, -16, 12, 14, -2, -1, 7, 0, -16, 5, -2, -4, -6, 12, -14, 5, 7, 6, 10, 18, 3, 0,
    -16, 2, 3, 5, -3, 0, 10, 13, 20, 3, -12, 1, 9, 5, -4, 4, -1, -10, 6, 9, 10, -11, -10, 9, 14, 15, 8, -7, 0, 10,
    -18, -16, -5, 17, 13,
]).reshape(25, 5)  # fmt: skip
TABLE_6_3 = RINGS.copy()
TABLE_6_3[20, [0, 2]] = -18, 15
TABLE_6_4 = [
    [30, 2, 19, -8, 8], [-5, -8, 1], [-12, 24, 21, 5, 2], [2, -4, -7, 15, 9], [-8, 7, 15, -11, 14], [9, -6, -3, -15],
    [-5, 6, -6, 0], [-15, 3, -7, 15, -12], [8, -5, 9, 5], [-2, 0, -10, 7, -5], [-6, -2, -6, -5, -10], [4, 0, 7, 0, -4],
    [-17, 2, -2], [6, -33, -6, 0, -16], [12, 14, -2], [0, -16, 5, -2, -4], [-6, 12, -14, 5], [6, 10, 18, 3, 0],
    [-16, 2, 3, 5, -3], [0, 10, 13], [-18, 1, 15, 5, -4], [4, -1, -10, 6, 9], [10, -11, -10, 9, 14], [15, 8, -7, 0, 10],
    [-18, -16, -5, 17, 13],
]  # fmt: skip


def items(groups: Any, *, ranges: bool) -> NDArray[np.float64]:
    """(mean, range or std, size) of each sample, in mm."""
    rows = [74 + np.array(group) / 1000 for group in groups]
    return np.array([(x.mean(), np.ptp(x) if ranges else x.std(ddof=1), len(x)) for x in rows])


@pytest.mark.parametrize(
    ("n", "of_c4", "of_d2"),
    [
        (2, 0.797885, 1.128379), (3, 0.886227, 1.692569), (4, 0.921318, 2.058751), (5, 0.939986, 2.325929),
        (10, 0.972659, 3.077505), (20, 0.986934, 3.734950), (25, 0.989640, 3.930629),
    ],
)  # fmt: skip
def test_constants(n: int, of_c4: float, of_d2: float) -> None:
    """Montgomery, appendix VI, to six digits."""
    assert c4(n) == pytest.approx(of_c4, abs=6e-7)
    assert d2(n) == pytest.approx(of_d2, abs=6e-7)


def test_constants_as_r_has_them() -> None:
    """R SixSigma's own tests: c4(20) = .99, d2(20) = 3.73, d3(20) = .73."""
    assert (round(c4(20), 2), round(d2(20), 2), round(d3(20), 2)) == (0.99, 3.73, 0.73)


def test_qcc_pistonrings() -> None:
    found = items(RINGS, ranges=True)
    sigma = textbook_sigma(found, ranges=True)
    center = float(found[:, 0].mean())
    assert center == pytest.approx(74.00118, abs=5e-6)
    assert sigma == pytest.approx(0.009785039, rel=1e-4)  # qcc's d2(5) is a little off
    lines = textbook_means(center, sigma, 5)
    assert (lines.lcl, lines.ucl) == pytest.approx((73.98805, 74.0143), abs=6e-6)
    spread = textbook_spreads(sigma, 5, ranges=True)
    assert spread == pytest.approx((0, 0.02276, 0.04812533), rel=1e-4)


def test_qcc_pistonrings_s() -> None:
    found = items(RINGS, ranges=False)
    sigma = textbook_sigma(found, ranges=False)
    assert sigma == pytest.approx(0.009829977, rel=1e-6)
    assert textbook_spreads(sigma, 5, ranges=False) == pytest.approx((0, 0.009240037, 0.01930242), rel=1e-6)


def test_montgomery_example_6_3() -> None:
    found = items(TABLE_6_3, ranges=False)
    sigma = textbook_sigma(found, ranges=False)
    lines = textbook_means(float(found[:, 0].mean()), sigma, 5)
    assert lines == pytest.approx((73.98776012, 74.001176, 74.01459188), abs=6e-9)
    assert textbook_spreads(sigma, 5, ranges=False) == pytest.approx((0, 0.00939948, 0.01963550), abs=6e-9)


def test_montgomery_example_6_4_different_sizes() -> None:
    """The pooled standard deviation is divided by c4 of each sample's size; the last sample has 5."""
    found = items(TABLE_6_4, ranges=False)
    size = found[:, 2]
    center = float(np.sum(size * found[:, 0]) / np.sum(size))
    sigma = textbook_sigma(found, ranges=False) / c4(5)
    assert textbook_means(center, sigma, 5) == pytest.approx((73.98606362, 74.00075221, 74.01544080), abs=6e-9)
    assert textbook_spreads(sigma, 5, ranges=False) == pytest.approx((0, 0.01029118, 0.02149825), abs=6e-9)
    second = textbook_means(center, textbook_sigma(found, ranges=False) / c4(3), 3)
    assert (second.lcl, second.ucl) == pytest.approx((73.98063903, 74.02086539), abs=6e-9)


def test_montgomery_example_6_5_moving_range() -> None:
    """Cost of a process, weeks 1 to 20: the chart of moving ranges is one of ranges of 2."""
    assert textbook_spreads(7.78947368 / d2(2), 2, ranges=True) == pytest.approx((0, 7.78947368, 25.448), abs=6e-3)
