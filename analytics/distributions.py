"""Normal and Student t distributions with numpy and the standard library: the agent needs no scipy."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_NORMAL = NormalDist()
_TINY = 1e-300


def normal_quantile(p: float) -> float:
    """X with P(X <= x) = p for a standard normal X.

    >>> round(normal_quantile(0.99865), 4)
    3.0
    """
    return _NORMAL.inv_cdf(p)


def normal_cdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(X <= x) for a standard normal X, any shape; accurate in the lower tail too."""
    flat = [0.5 * math.erfc(-v / math.sqrt(2)) for v in x.ravel().tolist()]
    return np.array(flat).reshape(x.shape)


def normal_pdf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Density of the standard normal, any shape."""
    density: NDArray[np.float64] = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return density


def t_upper_tail(x: float, nu: float) -> float:
    """P(T > x) for x >= 0 and Student's t with `nu` degrees of freedom, by the incomplete beta function.

    Abramowitz & Stegun 26.7.1 and 26.5.8 (continued fraction, evaluated by Lentz's method).
    """
    z = nu / (nu + x * x)
    a, b = 0.5 * nu, 0.5
    if z == 1.0:
        return 0.5
    if z < (a + 1) / (a + b + 2):
        return 0.5 * _beta_fraction(z, a, b)
    return 0.5 * (1 - _beta_fraction(1 - z, b, a))


def t_quantile(p: float, nu: float) -> float:
    """X with P(T <= x) = p, 0.5 <= p < 1, for Student's t with `nu` degrees of freedom; by bisection.

    >>> round(t_quantile(0.975, 10), 4)
    2.2281
    """
    tail = 1 - p
    if tail == 0.5:
        return 0.0
    low, high = 0.0, 1.0
    while t_upper_tail(high, nu) > tail:
        low, high = high, 2 * high
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if t_upper_tail(middle, nu) > tail:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for x below its mean."""
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1.0 / max(1 - (a + b) * x / (a + 1), _TINY)
    total = d
    for m in range(1, 500):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1 + even * d or _TINY)
        c = 1 + even / c or _TINY
        total *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / (1 + odd * d or _TINY)
        c = 1 + odd / c or _TINY
        step = c * d
        total *= step
        if abs(step - 1) < 1e-16:
            break
    return front * total


def beta_quantile(p: float, a: float, b: float) -> float:
    """X with P(X <= x) = p, 0 < p < 1, for a beta distribution; by bisection.

    >>> round(beta_quantile(0.95, 2.0, 3.0), 4)
    0.7514
    """

    def upper(x: float) -> float:
        return 1 - _beta_fraction(x, a, b) if x < (a + 1) / (a + b + 2) else _beta_fraction(1 - x, b, a)

    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if upper(middle) > 1 - p:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def f_quantile(p: float, d1: float, d2: float) -> float:
    """X with P(F <= x) = p for an F distribution with d1 and d2 degrees of freedom, by the beta distribution.

    >>> round(f_quantile(0.95, 3, 20), 4)
    3.0984
    """
    y = beta_quantile(p, d1 / 2, d2 / 2)
    return d2 * y / (d1 * (1 - y))


def chi2_quantile(p: float, nu: float) -> float:
    """X with P(X <= x) = p for chi-square with `nu` degrees of freedom; by the F distribution with 10^7 below.

    >>> round(chi2_quantile(0.99, 10), 3)
    23.209
    """
    return nu * f_quantile(p, nu, 1e7)


def beta_cdf(x: float, a: float, b: float) -> float:
    """P(X <= x) for a beta distribution.

    >>> round(beta_cdf(0.5, 2.0, 3.0), 4)
    0.6875
    """
    if not 0 < x < 1:
        return float(x >= 1)
    return _beta_fraction(x, a, b) if x < (a + 1) / (a + b + 2) else 1 - _beta_fraction(1 - x, b, a)


def f_upper_tail(x: float, d1: float, d2: float) -> float:
    """P(F > x) for an F distribution with d1 and d2 degrees of freedom.

    >>> round(f_upper_tail(3.0984, 3, 20), 4)
    0.05
    """
    return beta_cdf(d2 / (d2 + d1 * x), d2 / 2, d1 / 2) if x > 0 else 1.0
