"""Which baselines may be frozen."""

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.baseline import lag1, lag1_bound, screen


def ar1(random: np.random.Generator, phi: float, n: int) -> NDArray[np.float64]:
    """A stationary first-order autoregressive series of unit variance."""
    noise, x = random.normal(size=n) * np.sqrt(1 - phi**2), np.empty(n)
    x[0] = random.normal()
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    return x


@pytest.mark.parametrize("n", [20, 30, 50, 100])
def test_independent_values_are_seldom_refused(n: int) -> None:
    random = np.random.default_rng(n)
    refused = sum(screen(random.normal(size=n)).cause != "" for _ in range(1000))
    assert refused <= 18  # 1 % of 1,000, and 2.5 standard errors


@pytest.mark.parametrize(("n", "at_least"), [(30, 170), (50, 195), (100, 200)])
def test_autocorrelated_values_are_refused_with_the_figure(n: int, at_least: int) -> None:
    random = np.random.default_rng(1)
    found = [screen(ar1(random, 0.9, n)) for _ in range(200)]
    assert sum(s.cause != "" for s in found) >= at_least
    one = next(s for s in found if s.cause == "autocorrelated")
    assert one.figure > one.bound == lag1_bound(n)
    assert f"{one.figure:.2f}" in one.words
    assert "longer windows" in one.words
    assert "residual chart" in one.words


def test_a_trend_is_refused() -> None:
    values = np.random.default_rng(2).normal(size=50) + np.linspace(0, 4, 50)
    found = screen(values)
    assert found.cause == "trend"
    assert "run up" in found.words
    assert "run down" in screen(-values).words


def test_a_shift_is_refused() -> None:
    assert screen(np.random.default_rng(2).normal(size=100) + 3 * (np.arange(100) > 60)).cause != ""


def test_a_few_outliers_are_left_out_and_many_refuse() -> None:
    values = np.random.default_rng(3).normal(size=100)
    values[[10, 40]] = 12, -15
    found = screen(values)
    assert found.cause == ""
    assert np.flatnonzero(~found.kept).tolist() == [10, 40]
    values[[5, 17, 60, 71, 83, 90]] = 12, -13, 14, -15, 16, -17
    assert screen(values).cause == "outliers"


def test_constant_values_are_refused() -> None:
    assert screen(np.full(30, 0.1) * 3).cause == "constant"
    nearly = np.full(30, 5.0)
    nearly[7] = 6
    assert screen(nearly).cause == "constant"


def test_lag1_by_hand() -> None:
    assert lag1(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(1.25 / 5)
