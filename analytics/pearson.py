"""Percentiles of values that are not normal: the Pearson curve with their mean, spread, skewness and kurtosis.

Clements, "Process capability calculations for non-normal distributions", Quality Progress 22 (1989), reads these
percentiles from tables; here Pearson's differential equation is integrated instead.
"""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_POINTS = 20_001
_FARTHEST = 60.0  # sigmas: a tail that is still heavy there is of no use
_FIT = 1.63  # largest distance between the curve and the values, times sqrt(n), that chance explains (1 %)


class PearsonCurve(msgspec.Struct, frozen=True, eq=False):
    """A distribution on a grid.

    Attributes:
        x: the grid, in the values' unit, (m,).
        cdf: P(X <= x), ascending from 0 to 1, (m,).
    """

    x: Floats
    cdf: Floats

    def quantile(self, p: float) -> float:
        """X with P(X <= x) = p."""
        inside = np.flatnonzero(np.diff(self.cdf, prepend=-1.0) > 0)
        return float(np.interp(p, self.cdf[inside], self.x[inside]))

    def below(self, x: float) -> float:
        """P(X <= x)."""
        return float(np.interp(x, self.x, self.cdf, left=0.0, right=1.0))


def moments(values: Floats) -> tuple[float, float, float, float]:
    """Mean, standard deviation (n - 1), skewness and kurtosis (3 for a normal distribution), by central moments."""
    mean = float(np.mean(values))
    d = values - mean
    m2 = float(np.mean(d * d))
    return mean, float(np.std(values, ddof=1)), float(np.mean(d**3)) / m2**1.5, float(np.mean(d**4)) / m2**2


def pearson(mean: float, sigma: float, skewness: float, kurtosis: float) -> PearsonCurve | None:
    """The curve with these moments; None where it is U-shaped, or crowds at one end.

    f'/f = -(d x + b) / (a + b x + c x²) for x in sigmas from the mean, with a = 4 k - 3 s², b = s (k + 3),
    c = 2 k - 3 s² - 6 and d = 10 k - 12 s² - 18 (Johnson, Kotz & Balakrishnan, Continuous Univariate Distributions 1,
    12.4.1).

    >>> round(pearson(0.0, 1.0, 0.0, 3.0).quantile(0.99865), 3)
    3.0
    """
    s2 = skewness * skewness
    a, b = 4 * kurtosis - 3 * s2, skewness * (kurtosis + 3)
    c, d = 2 * kurtosis - 3 * s2 - 6, 10 * kurtosis - 12 * s2 - 18
    if kurtosis <= s2 + 1 or d < 0 or a <= 0:
        return None
    roots = _roots(a, b, c)
    low, high = _support(roots)
    # midpoints: the ends themselves may be poles. Points gather at the ends, where the curve may be steep.
    angle = (np.arange(_POINTS) + 0.5) / _POINTS * math.pi
    x = 0.5 * (low + high) - 0.5 * (high - low) * np.cos(angle)
    weight = 0.5 * (high - low) * np.sin(angle) * math.pi / _POINTS
    log_density = _log_density(x, a, b, c, d, roots)
    mass = np.exp(log_density - log_density.max()) * weight
    if not np.all(np.isfinite(mass)) or max(mass[0], mass[-1]) > 0.01 * np.max(mass):  # a pole holds most of it
        return None
    cdf = np.cumsum(mass) - 0.5 * mass
    return PearsonCurve(mean + sigma * x, cdf / mass.sum())


def _log_density(x: Floats, a: float, b: float, c: float, d: float, roots: list[float]) -> Floats:
    """The integral of -(d x + b) / (a + b x + c x²), but for a constant."""
    if len(roots) == 2 and roots[1] - roots[0] > 1e-6:
        first, second = roots
        at_first = -(d * first + b) / (c * (first - second))
        at_second = -(d * second + b) / (c * (second - first))
        return np.asarray(at_first * np.log(np.abs(x - first)) + at_second * np.log(np.abs(x - second)))
    if len(roots) == 1:
        return np.asarray(-d / b * x + (d * a / b - b) / b * np.log(np.abs(a + b * x)))
    slope = -(d * x + b) / (a + b * x + c * x * x)
    return np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(x))])


def _roots(a: float, b: float, c: float) -> list[float]:
    """Where a + b x + c x² is 0, ascending."""
    if abs(c) < 1e-9 * a:
        return [-a / b] if abs(b) > 1e-9 * a else []
    inside = b * b - 4 * a * c
    return [] if inside < 0 else sorted((-b + sign * math.sqrt(inside)) / (2 * c) for sign in (-1, 1))


def _support(roots: list[float]) -> tuple[float, float]:
    """The interval around 0 without a root."""
    low, high = -_FARTHEST, _FARTHEST
    for root in roots:
        low, high = (max(low, root), high) if root < 0 else (low, min(high, root))
    return low, high


def misfit(curve: PearsonCurve, values: Floats) -> float:
    """Largest distance between the curve and the share of values below (ties count half), times sqrt(n) / 1.63.

    Above 1 the curve is not the values' distribution (Kolmogorov's test at 1 %; lenient, as the moments are fitted).
    """
    x, count = np.unique(values, return_counts=True)
    share = (np.cumsum(count) - 0.5 * count) / len(values)
    away = np.abs(np.interp(x, curve.x, curve.cdf, left=0.0, right=1.0) - share)
    return float(np.max(away)) * math.sqrt(len(values)) / _FIT
