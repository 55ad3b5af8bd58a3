"""Multivariate charts against published figures."""

import numpy as np
import pytest

from analytics.charts.mewma import MewmaChart
from analytics.charts.t2 import (
    HotellingChart,
    phase1_limit,
    phase1_limit_of_means,
    phase2_limit,
    phase2_limit_of_means,
)
from analytics.charts.vector import covariance


def test_ryan_table_9_2_limits() -> None:
    """Ryan, Statistical Methods for Quality Improvement, Table 9.2, as qcc prints it; p 2, m 20, n 4."""
    rate = 1 - 0.9973**2
    assert phase1_limit_of_means(20, 4, 2, rate) == pytest.approx(11.03976, abs=6e-6)
    assert phase2_limit_of_means(20, 4, 2, rate) == pytest.approx(12.20203, rel=2e-5)  # qcc prints 12.20184


_BOILER = """
507 516 527 516 499 512 472 477   512 513 533 518 502 510 476 475   520 512 537 518 503 512 480 477
520 514 538 516 504 517 480 479   530 515 542 525 504 512 481 477   528 516 541 524 505 514 482 480
522 513 537 518 503 512 479 477   527 509 537 521 504 508 478 472   533 514 528 529 508 512 482 477
530 512 538 524 507 512 482 477   530 512 541 525 507 511 482 476   527 513 541 523 506 512 481 476
529 514 542 525 506 512 481 477   522 509 539 518 501 510 476 475   532 515 545 528 507 511 481 478
531 514 543 525 507 511 482 477   535 514 542 530 509 511 483 477   516 515 537 515 501 516 476 481
514 510 532 512 497 512 471 476   536 512 540 526 509 512 482 477   522 514 540 518 497 514 475 478
520 514 540 518 501 514 475 478   526 517 546 522 502 516 477 480   527 514 543 523 502 512 475 476
529 518 544 525 504 516 479 481
"""
BOILER = np.array(_BOILER.split(), np.float64).reshape(25, 8)  # eight temperatures, 25 times (R qcc, `boiler`)


def test_boiler_limits() -> None:
    """R qcc, `boiler`: 25 vectors of 8 temperatures, 99.9 %."""
    assert phase1_limit(25, 8, 0.001) == pytest.approx(17.41705, abs=6e-5)
    assert phase2_limit(25, 8, 0.001) == pytest.approx(70.02943, abs=6e-5)


def test_boiler_has_one_signal() -> None:
    """|S| 8313.241; T2 is largest at row 9, 17.575, the only one above the phase I limit."""
    chart = HotellingChart()
    model = chart.fit(BOILER)
    t2 = np.array([chart.step(model, chart.memory(8), row)[0][0] for row in BOILER])
    assert np.linalg.det(covariance(BOILER)) == pytest.approx(8313.241, rel=1e-6)
    assert t2.argmax() == 8
    assert t2[8] == pytest.approx(17.575, abs=6e-4)
    assert np.flatnonzero(t2 > phase1_limit(25, 8, 0.001)).tolist() == [8]


@pytest.mark.parametrize(
    ("p", "h", "lengths"),
    [
        (4, 12.73, {0.0: 199.78, 0.5: 35.05, 1.0: 12.17, 1.5: 7.22, 2.0: 5.19, 3.0: 3.42}),
        (20, 37.01, {1.0: 20.17, 2.0: 8.03, 3.0: 5.18}),
    ],
)
def test_mewma_run_lengths(p: int, h: float, lengths: dict[float, float]) -> None:
    """Molnau et al. (2001): r = 0.1, zero state, known parameters; Monte Carlo of the recursion, many runs at once.

    The chart itself takes one vector at a time, so the runs are vectorised here; the last lines tie them together.
    """
    r, runs = 0.1, 2000
    for shift, published in lengths.items():
        rng = np.random.default_rng(round(1000 * shift) + p)
        z, length, alive = np.zeros((runs, p)), np.zeros(runs), np.arange(runs)
        while len(alive):
            x = rng.normal(size=(len(alive), p))
            x[:, 0] += shift
            z = r * x + (1 - r) * z
            length[alive] += 1
            inside = (2 - r) / r * np.sum(z * z, axis=1) <= h
            z, alive = z[inside], alive[inside]
        error = length.std() / np.sqrt(runs)
        assert length.mean() == pytest.approx(published, abs=4 * error + 0.02)
    chart, memory = MewmaChart(r), np.zeros(p)
    model = {"mean": np.zeros(p), "precision": np.eye(p)}
    mean = np.zeros(p)
    for row in np.random.default_rng(1).normal(size=(20, p)):
        statistics, memory = chart.step(model, memory, row)
        mean = r * row + (1 - r) * mean
    assert statistics[0] == pytest.approx((2 - r) / r * mean @ mean)


def test_t2_of_independent_vectors_sums_to_its_degrees() -> None:
    """The mean of T2 over the vectors that it was learned from is p (m - 1) / m exactly."""
    x = np.random.default_rng(2).normal(size=(25, 8)) @ np.random.default_rng(3).normal(size=(8, 8))
    chart = HotellingChart()
    model = chart.fit(x)
    assert np.allclose(covariance(x), np.cov(x.T))
    t2 = [chart.step(model, chart.memory(8), row)[0][0] for row in x]
    assert np.mean(t2) == pytest.approx(8 * 24 / 25)
