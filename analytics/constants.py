"""Constants of subgroups: c4, d2, d3, and the distribution of the range of n normal values.

Source: Montgomery, Introduction to Statistical Quality Control, appendix VI; Tippett, Biometrika 17 (1925). Computed,
not copied: printed tables have four digits.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from analytics.distributions import normal_cdf, normal_pdf

Floats = NDArray[np.float64]

_FARTHEST = 9.0  # sigmas: beyond lies less than 1e-18


def c4(n: float) -> float:
    """Mean of the sample standard deviation of n normal values, in sigmas.

    >>> round(c4(5), 6)
    0.939986
    """
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def d2(n: int) -> float:
    """Mean range of n normal values, in sigmas.

    >>> round(d2(5), 6)
    2.325929
    """
    return _range_moments(n)[0]


def d3(n: int) -> float:
    """Standard deviation of the range of n normal values, in sigmas.

    >>> round(d3(5), 4)
    0.8641
    """
    return _range_moments(n)[1]


def range_cdf(w: Floats, n: int) -> Floats:
    """P(range <= w) of n normal values, w in sigmas: n times the integral of pdf(x) (cdf(x + w) - cdf(x))^(n - 1).

    >>> round(float(range_cdf(np.array([2.0]), 2)[0]), 6)
    0.842701
    """
    x, weight = _nodes()
    between = normal_cdf(np.asarray(w, float)[..., None] + x) - normal_cdf(x)
    return np.asarray(n * np.sum(weight * normal_pdf(x) * np.maximum(between, 0.0) ** (n - 1), axis=-1))


@lru_cache(maxsize=64)
def _range_moments(n: int) -> tuple[float, float]:
    """Mean and standard deviation, from the tail of the distribution."""
    x, weight = np.polynomial.legendre.leggauss(120)
    half = 0.5 * 2 * _FARTHEST
    w, weight = half * (x + 1), half * weight
    above = 1 - range_cdf(w, n)
    mean = float(np.sum(weight * above))
    return mean, math.sqrt(float(np.sum(weight * 2 * w * above)) - mean * mean)


@lru_cache(maxsize=1)
def _nodes() -> tuple[Floats, Floats]:
    x, weight = np.polynomial.legendre.leggauss(120)
    return _FARTHEST * x, _FARTHEST * weight
