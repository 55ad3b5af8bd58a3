"""Control limits: the textbook's, and limits designed for a rate of false alarms.

Limits learned from n values are uncertain. Textbook limits ignore that and alarm far too often (an EWMA learned from 30
values about three times). Designed limits are wider, so that the rate of false alarms, averaged over what the baseline
might have been, is the designed one: E[1 / ARL(estimation error)] = 1 / ARL0, by quadrature over the error of the mean
(normal) and of the standard deviation (chi). For an individuals chart with rule 1 alone this is exact: Student's t
prediction interval (Hahn & Meeker, Statistical Intervals, 4.8).
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.arl import ewma_arl, run_rules_arl
from analytics.distributions import normal_quantile, t_quantile

Floats = NDArray[np.float64]

D2 = 2.0 / math.sqrt(math.pi)  # d2(2): mean range of two standard normal values
SHEWHART_ARL0 = 1.0 / (2.0 * 0.0013498980316300946)  # 370.398: rule 1 at 3 sigma
WIDEST = 1.7  # cap on the widening of zones: run rules that look at the side alone cannot be widened


class Estimate(msgspec.Struct, frozen=True):
    """What a baseline says: mean, standard deviation, number of values."""

    center: float
    sigma: float
    n: int


class Design(msgspec.Struct, frozen=True):
    """Where limits stand, in estimated sigmas of a charted value.

    Attributes:
        width: control limits stand at centre +/- width * sigma.
        arl0: one false alarm in so many values, on average over the estimation error.
    """

    width: float
    arl0: float


def moving_range_estimate(values: Floats) -> Estimate:
    """Mean and sigma = mean moving range / d2(2), the textbook's for individuals (Montgomery 6.4).

    >>> round(moving_range_estimate(np.array([1.0, 3.0, 2.0, 4.0])).sigma, 4)
    1.477
    """
    sigma = float(np.mean(np.abs(np.diff(values)))) / D2
    return Estimate(float(np.mean(values)), sigma, len(values))


def spread_estimate(values: Floats) -> Estimate:
    """Mean and sample standard deviation (two passes): what designed limits use.

    It needs fewer values than the moving range for the same certainty, its distribution is known exactly, and it does
    not shrink when neighbours resemble each other.
    """
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))


def textbook_individuals(estimate: Estimate, width: float = 3.0) -> tuple[float, float]:
    """(LCL, UCL) = centre -/+ width * sigma."""
    return estimate.center - width * estimate.sigma, estimate.center + width * estimate.sigma


def textbook_ewma(estimate: Estimate, lam: float, width: float, index: int | None = None) -> tuple[float, float]:
    """(LCL, UCL) of an EWMA at the `index`-th value (from 1), or in the steady state (Montgomery 9.2).

    `estimate.sigma` is that of one charted value: of the mean, if means are charted.
    """
    growth = 1.0 if index is None else 1.0 - (1.0 - lam) ** (2 * index)
    half = width * estimate.sigma * math.sqrt(lam / (2.0 - lam) * growth)
    return estimate.center - half, estimate.center + half


def design_individuals(n: int, mask: int, arl0: float | None = None) -> Design:
    """Width of rule 1 (the zones are thirds of it) for limits learned from `n` values.

    Args:
        n: values in the baseline; 0 for known mean and sigma.
        mask: rules, see `analytics.rules.rule_mask`.
        arl0: in-control values per false alarm; None takes what the rules have at 3 sigma (370.4 for rule 1).

    >>> round(design_individuals(30, 1).width, 3)
    3.335
    """
    target = float(run_rules_arl(mask)) if arl0 is None else arl0
    if mask == 1:
        if n == 0:
            return Design(normal_quantile(1 - 0.5 / target), target)
        return Design(t_quantile(1 - 0.5 / target, n - 1) * math.sqrt(1 + 1 / n), target)
    unit, got = _solve("rules", mask, n, target)
    return Design(3 * unit, got)


def design_ewma(n: int, lam: float, arl0: float | None = None) -> Design:
    """Width of an EWMA chart, in sigmas of one charted value, for limits learned from `n` values (0: known).

    >>> round(design_ewma(0, 0.2, 500.0).width / math.sqrt(0.2 / 1.8), 3)
    2.962
    """
    width, got = _solve("ewma", lam, n, SHEWHART_ARL0 if arl0 is None else arl0)
    return Design(width * math.sqrt(lam / (2 - lam)), got)


def longest_arl0(mask: int) -> float:
    """The longest ARL0 that widening the zones can give a rule set: rule 4 alone alarms every 255 values."""
    return float(run_rules_arl(mask, WIDEST))


@lru_cache(maxsize=1024)
def _solve(kind: Literal["rules", "ewma"], parameter: float, n: int, target: float) -> tuple[float, float]:
    """The width at which the expected rate of false alarms is 1 / target, and the ARL0 that it gives."""
    shift, spread, weight = _estimation_error(n)

    def rate(width: float) -> float:
        if kind == "ewma":
            lengths = ewma_arl(parameter, width * spread, shift)
        else:
            lengths = run_rules_arl(int(parameter), width * spread, shift)
        return float(np.sum(weight / np.maximum(np.abs(lengths), 1.0)))

    low, high = (0.05, 12.0) if kind == "ewma" else (0.2, WIDEST)
    if rate(high) > 1.0 / target:
        return high, 1.0 / rate(high)
    width = _falling_root(lambda w: math.log(max(rate(w), 1e-300) * target), low, high)
    return round(width, 6), target


def _falling_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, by regula falsi with the Illinois change."""
    f_low, f_high = f(low), f(high)
    for _ in range(60):
        middle = (low * f_high - high * f_low) / (f_high - f_low)
        value = f(middle)
        if abs(value) < 3e-5:
            return middle
        if value > 0:
            low, f_low, f_high = middle, value, 0.5 * f_high
        else:
            high, f_high, f_low = middle, value, 0.5 * f_low
        if high - low < 1e-9:
            break
    return 0.5 * (low + high)


@lru_cache(maxsize=256)
def _estimation_error(n: int) -> tuple[Floats, Floats, Floats]:
    """Nodes and weights: error of the mean and estimated sigma, in true sigmas, for a baseline of n normal values."""
    if n == 0:
        return np.zeros(1), np.ones(1), np.ones(1)
    x, mean_weight = np.polynomial.hermite_e.hermegauss(6)
    positive = x > 0  # charts are symmetric: half the nodes do
    error, mean_weight = x[positive] / math.sqrt(n), mean_weight[positive]
    nu = n - 1
    half = 5.0 / math.sqrt(2 * nu)
    y, spread_weight = np.polynomial.legendre.leggauss(14)
    low, high = max(1 - half, 0.02), 1 + half
    s = 0.5 * (low + high) + 0.5 * (high - low) * y
    log_density = (nu - 1) * np.log(s) - 0.5 * nu * s * s
    spread_weight = spread_weight * np.exp(log_density - log_density.max())
    a, b = np.meshgrid(error, s, indexing="ij")
    weight = np.outer(mean_weight / mean_weight.sum(), spread_weight / spread_weight.sum())
    return a.ravel(), b.ravel(), weight.ravel()
