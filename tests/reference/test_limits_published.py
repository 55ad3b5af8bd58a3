"""Limits against published numbers.

Sources: Montgomery, Introduction to Statistical Quality Control (examples 6.5 and 9.1, as printed by the R package
qicharts2); the R package qcc 3.0, vignette "A quick tour of qcc" (viscosity, pistonrings).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analytics.charts.ewma import EwmaBank
from analytics.config import ChartConfig
from analytics.limits import (
    D2,
    Design,
    Estimate,
    moving_range_estimate,
    spread_estimate,
    textbook_ewma,
    textbook_individuals,
)

# Montgomery table 6.6 is drawn as example 6.5: cost of a process, weeks 1-20
EX_6_5 = [310, 288, 297, 298, 307, 303, 294, 297, 308, 306, 294, 299, 297, 299, 314, 295, 293, 306, 301, 304]
# qcc's viscosity, batches 1-20
VISCOSITY = [
    34.05, 34.40, 33.59, 35.96, 34.70, 33.51, 33.79, 34.04, 34.52, 33.75,
    33.27, 33.71, 34.03, 34.58, 34.02, 33.97, 34.05, 34.04, 33.73, 34.05,
]  # fmt: skip
# Montgomery table 9.1: target 10, sigma 1; the mean moves to 11 at the 21st
TABLE_9_1 = [
    9.45, 7.99, 9.29, 11.66, 12.16, 10.18, 8.04, 11.46, 9.20, 10.34, 9.03, 11.47, 10.51, 9.40, 10.08,
    9.37, 10.62, 10.31, 8.52, 10.84, 10.90, 9.33, 12.29, 11.50, 10.60, 11.08, 10.38, 11.62, 11.31, 10.52,
]  # fmt: skip


def printed(values: Any) -> Estimate:
    """By the moving range with d2 = 1.128, the rounded constant that books and qcc divide by; we use 2 / sqrt(pi)."""
    estimate = moving_range_estimate(np.array(values, float))
    return Estimate(estimate.center, estimate.sigma * D2 / 1.128, estimate.n)


def test_montgomery_example_6_5_individuals() -> None:
    estimate = printed(EX_6_5)
    assert estimate.center == pytest.approx(300.5)
    assert textbook_individuals(estimate) == pytest.approx((279.78331467, 321.21668533), rel=1e-9)


@pytest.mark.parametrize(
    ("estimator", "sigma", "lcl", "ucl"),
    [(printed, 0.5076521, 32.56504, 35.61096), (spread_estimate, 0.5769854, 32.35704, 35.81896)],
)
def test_qcc_viscosity_individuals(estimator: Callable[..., Estimate], sigma: float, lcl: float, ucl: float) -> None:
    estimate = estimator(np.array(VISCOSITY))
    c4 = 0.986934 if estimator is spread_estimate else 1.0  # qcc divides the standard deviation by c4(20)
    estimate = Estimate(estimate.center, estimate.sigma / c4, 20)
    assert estimate.center == pytest.approx(34.088)
    assert estimate.sigma == pytest.approx(sigma, rel=1e-4)
    assert textbook_individuals(estimate) == pytest.approx((lcl, ucl), rel=1e-5)


def test_qcc_viscosity_without_the_fourth() -> None:
    estimate = printed(np.delete(np.array(VISCOSITY), 3))
    assert estimate.center == pytest.approx(33.98947, rel=1e-6)
    assert textbook_individuals(estimate) == pytest.approx((32.75425, 35.2247), rel=1e-6)


@pytest.mark.parametrize(
    ("width", "index", "lcl", "ucl"),
    [
        (3, 1, 73.99855, 74.00380),
        (3, None, 73.99680, 74.00555),
        (2.7, 1, 73.99881, 74.00354),
        (2.7, 40, 73.99724, 74.00511),
    ],
)
def test_qcc_pistonrings_ewma(width: float, index: int | None, lcl: float, ucl: float) -> None:
    estimate = Estimate(74.00118, 0.009785039 / np.sqrt(5), 25)
    assert textbook_ewma(estimate, 0.2, width, index) == pytest.approx((lcl, ucl), abs=1.1e-5)


@pytest.mark.parametrize(("index", "lcl", "ucl"), [(1, 33.81387, 34.36213), (35, 33.63111, 34.54489)])
def test_qcc_viscosity_ewma(index: int | None, lcl: float, ucl: float) -> None:
    assert textbook_ewma(Estimate(34.088, 0.5076521, 20), 0.2, 2.7, index) == pytest.approx((lcl, ucl), abs=1e-5)


def test_montgomery_table_9_1_ewma() -> None:
    z, path = 10.0, []
    for x in TABLE_9_1:
        z = 0.1 * x + 0.9 * z
        path.append(z)
    assert [path[i] for i in (0, 27, 28, 29)] == pytest.approx([9.945, 10.5731, 10.6468, 10.6341], abs=5e-5)
    bounds = [textbook_ewma(Estimate(10, 1, 0), 0.1, 2.7, i) for i in range(1, 31)]
    assert bounds[0] == pytest.approx((9.73, 10.27))
    assert bounds[29] == pytest.approx((9.38113, 10.61887), abs=1e-5)
    assert [i + 1 for i, (x, (lcl, ucl)) in enumerate(zip(path, bounds, strict=True)) if not lcl <= x <= ucl] == [
        29,
        30,
    ]


def test_nist_6_3_2_4_ewma() -> None:
    """NIST/SEMATECH e-Handbook 6.3.2.4: start 50, s 2.0539, lambda 0.3, k 3."""
    assert textbook_ewma(Estimate(50, 2.0539, 0), 0.3, 3) == pytest.approx((47.4115, 52.5884), abs=1e-4)
    x = [52, 47, 53, 49.3, 50.1, 47, 51, 50.1, 51.2, 50.5, 49.6, 47.6, 49.9, 51.3, 47.8, 51.2, 52.6, 52.4, 53.6, 52.1]
    printed_z = [
        50.60, 49.52, 50.56, 50.18, 50.16, 49.21, 49.75, 49.85, 50.26, 50.33, 50.11, 49.36, 49.52, 50.05, 49.38, 49.92,
        50.73, 51.23, 51.94, 51.99,
    ]  # fmt: skip  # the page's sixth, 49.12, has its digits the other way round
    bank = EwmaBank(ChartConfig(kind="ewma", signals=("m/x",), lambda_=0.3))
    bank.grow(1)
    bank.freeze(0, Estimate(50, 2.0539, 0), Design(3 * np.sqrt(0.3 / 1.7), 0.0))
    found = [bank.update(np.array([0]), np.array([v])) for v in x]
    assert [f.statistic[0] for f in found] == pytest.approx(printed_z, abs=0.0051)
    assert not any(f.violation[0] for f in found)
