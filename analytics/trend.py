"""Does a signal move towards its limit, and when is it there?

Values in a row are a level up to some moment and a ramp from there on (or a ramp all along), with noise that is an
AR(1) series. For each moment the ramp is fitted, on values from which φ times the one before is taken (D. Cochrane,
G. H. Orcutt, J. Am. Stat. Assoc. 44, 1949; the first one as S. J. Prais and C. B. Winsten did, 1954). Its gain is twice
the log likelihood ratio against no ramp: the generalized likelihood ratio for a linear drift (L. Xu et al., J. Quality
Technology 44, 2012). A ramp must beat the best sudden step, by which it is no trend but an event, by `OVER_STEP`.

The forecast is a Huber regression (P. J. Huber, Ann. Math. Stat. 35, 1964: values far off weigh less), with the
prediction interval of a single value (N. R. Draper, H. Smith, Applied Regression Analysis, ch. 3). Its crossings of the
limit are the interval of the time that is left. It takes the moment for known, and the ramp to go on as it does.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

GAIN = 25.0  # five standard errors of the slope; more by DOUBTED φ, as that is known from a short baseline
DOUBTED = 2.0
OVER_STEP = 2.0
SHORTEST = 2  # values of a ramp
FURTHEST = 10_000  # values ahead
QUANTILE = 1.645  # both sides of 90 %
_HUBER, _ROUNDS = 1.345, 5


class Ramp(NamedTuple):
    """The best ramp of each of k series, (k,): its gain and values, the best step's gain, and the least of a trend."""

    gain: Floats
    length: Ints
    step: Floats
    needed: Floats

    @property
    def is_trend(self) -> NDArray[np.bool_]:
        """Whether it is one, (k,)."""
        return (self.gain > self.needed) & (self.gain > self.step + OVER_STEP)

    @property
    def goes_on(self) -> NDArray[np.bool_]:
        """Whether it may still be one, where it was, (k,)."""
        return (self.gain > self.needed / 2) & (self.gain > self.step - OVER_STEP)


class Forecast(NamedTuple):
    """When a value will be at a limit.

    Attributes:
        slope: a value.
        level: the line at the newest value.
        upper: whether it is the upper limit.
        limit: which.
        first: values until one may be beyond it (5 %).
        expected: values until the line is there.
        last: values until nearly every one is (95 %); None if that is beyond `FURTHEST`.
    """

    slope: float
    level: float
    upper: bool
    limit: float
    first: int
    expected: int
    last: int | None


def noise(values: Floats, caution: float = 0.15) -> tuple[float, float]:
    """Lag-1 correlation and standard deviation of the innovations of a baseline, less its own straight line.

    Args:
        values: the baseline, (n,).
        caution: added to a correlation that is seen: a baseline is short, and too little of it floods people.

    >>> phi, sigma = noise(np.random.default_rng(1).normal(5.0, 2.0, 200))
    >>> phi, round(sigma, 1)
    (0.0, 1.9)
    """
    n = len(values)
    t = np.arange(n) - (n - 1) / 2
    left = values - np.mean(values)
    left -= np.sum(left * t) / np.sum(t * t) * t
    total = float(np.sum(left * left))
    seen = float(np.sum(left[1:] * left[:-1])) / total if total > 0 else 0.0
    if seen <= 1 / math.sqrt(n):
        change = np.abs(np.diff(values))
        return 0.0, float(np.mean(np.minimum(change, 4 * np.median(change)))) / 1.128379
    phi = min(seen + (1 + 4 * seen) / n + caution, 0.98)
    left = values[1:] - phi * values[:-1]
    left -= np.median(left)
    return phi, math.sqrt(float(np.sum(left * left)) / (n - 3))


def ramps(values: Floats, phi: Floats, sigma: Floats) -> Ramp:
    """The best ramp at the end of each series.

    Args:
        values: k series of one length, (k, n), n of 3 or more.
        phi: lag-1 correlation of their noise, (k,).
        sigma: standard deviation of its innovations, (k,).

    >>> noise = np.random.default_rng(1).normal(0, 1, 40)
    >>> found = ramps((noise + np.maximum(0, np.arange(40) - 29))[None, :], np.zeros(1), np.ones(1))
    >>> found.is_trend.tolist(), found.length.tolist()
    ([True], [11])
    """
    n = values.shape[1]
    p, q = phi[:, None], 1 - phi[:, None]
    white = np.sqrt(1 - p * p)
    z = values - values[:, :1]  # about the first: no cancellation on large offsets
    z[:, 1:] -= p * (values[:, :-1] - values[:, :1])
    z[:, :1] *= white
    cc = white * white + (n - 1) * q * q
    cz = white * z[:, :1] + q * np.sum(z[:, 1:], axis=1, keepdims=True)
    m = np.arange(1, n)  # values of the ramp, or behind the step
    back = z[:, ::-1]
    sums = np.cumsum(back, axis=1)[:, :-1]
    weighted = m * sums - np.cumsum(back * np.arange(n), axis=1)[:, :-1]
    total, squares = m * (m + 1) / 2, m * (m + 1) * (2 * m + 1) / 6
    ramp = _gain(
        q * weighted + p * sums, q * q * squares + 2 * q * p * total + p * p * m, q * (q * total + p * m), cz, cc
    )
    step = _gain(q * sums + p * back[:, :-1], 1 + (m - 1) * q * q, q * (1 + (m - 1) * q), cz, cc)
    variance = np.maximum(sigma * sigma, 1e-300)
    best = np.argmax(ramp[:, SHORTEST - 1 :], axis=1) + SHORTEST - 1
    gain = ramp[np.arange(len(values)), best] / variance
    return Ramp(gain, best + 1, np.max(step, axis=1) / variance, GAIN * (1 + DOUBTED * phi))


def _gain(rz: Floats, rr: Floats, cr: Floats, cz: Floats, cc: Floats) -> Floats:
    """What a regressor explains beside a constant, from their sums of products with each other and the values."""
    own = np.maximum(rr - cr * cr / cc, 1e-9)
    return np.asarray((rz - cr * cz / cc) ** 2 / own)


def forecast(
    values: Floats, phi: float, sigma: float, length: int, lower: float | None, upper: float | None
) -> Forecast | None:
    """When the ramp at the end of a series reaches the limit that it moves to; None if there is none within reach.

    Args:
        values: the series, (n,).
        phi: lag-1 correlation of its noise.
        sigma: standard deviation of its innovations.
        length: values of the ramp.
        lower: lower limit, if there is one.
        upper: upper limit, if there is one.

    >>> found = forecast(np.maximum(0.0, np.arange(40.0) - 29), 0.0, 0.5, 10, None, 20.0)
    >>> round(found.slope, 3), found.first, found.expected, found.last
    (1.0, 9, 10, 12)
    """
    n = len(values)
    along = np.maximum(0.0, np.arange(n) - (n - 1 - length))
    rows, z = np.column_stack([np.ones(n), along]), values.astype(np.float64)
    rows[1:], z[1:] = rows[1:] - phi * rows[:-1], z[1:] - phi * z[:-1]
    white = math.sqrt(1 - phi * phi)
    rows[0], z[0] = rows[0] * white, z[0] * white
    weight = np.ones(n)
    (level, slope), spread = _weighted(rows, z, weight)
    for _ in range(_ROUNDS):
        away = np.abs(z - rows[:, 0] * level - rows[:, 1] * slope)
        weight = np.minimum(1.0, _HUBER * sigma / np.maximum(away, 1e-300))
        (level, slope), spread = _weighted(rows, z, weight)
    limit = upper if slope > 0 else lower
    if limit is None or slope == 0:
        return None
    sign = 1.0 if slope > 0 else -1.0
    ahead = np.arange(1, FURTHEST + 1)
    at = length + ahead
    line = level + slope * at
    memory = phi**ahead
    middle = line + memory * (values[-1] - level - slope * length)
    variance = sigma * sigma * (spread[0] + 2 * at * spread[1] + at * at * spread[2])
    width = QUANTILE * np.sqrt(variance + sigma * sigma / (1 - phi * phi) * (1 - memory * memory))
    left = [sign * (edge - limit) >= 0 for edge in (middle + sign * width, line, middle - sign * width)]
    first, expected, last = (int(np.argmax(beyond)) + 1 if beyond.any() else None for beyond in left)
    if first is None or expected is None:
        return None
    return Forecast(slope, level + slope * length, slope > 0, limit, first, max(expected, first), last)


def _weighted(rows: Floats, z: Floats, weight: Floats) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """Weighted least squares with two regressors: coefficients, and the inverse of their matrix."""
    a, b = rows[:, 0], rows[:, 1]
    aa, ab, bb = (float(np.sum(weight * x * y)) for x, y in ((a, a), (a, b), (b, b)))
    az, bz = float(np.sum(weight * a * z)), float(np.sum(weight * b * z))
    det = max(aa * bb - ab * ab, 1e-300)
    return ((bb * az - ab * bz) / det, (aa * bz - ab * az) / det), (bb / det, -ab / det, aa / det)
