"""A learned envelope: mean curve and band, with a designed rate of false alarms for the curve as a whole.

A new curve is compared point by point: z(x) = (y(x) - mean(x)) / (s(x) sqrt(1 + 1/n)), Student's t with n - 1 degrees
of freedom where curves are normal. The alarm is the largest |z|, wherever it is. Its limit u solves

    2 [ P(T > u) + L / (2 pi) (1 + u^2 / nu)^(-(nu - 1) / 2) ] = rate,   nu = n - 1,

the expected Euler characteristic of what is beyond u in a smooth t field: Worsley, Advances in Applied Probability 26
(1994) 13-42. L, how often the curves turn, is the length of the path of the normalised residuals: Taylor & Worsley,
Journal of the American Statistical Association 102 (2007) 913-928. Where curves are so rough that this asks for more
than Bonferroni's bound over the points of the grid, the latter counts.
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.distributions import t_upper_tail
from analytics.state import pack, unpack

Floats = NDArray[np.float64]

LEAST_SPREAD = 0.05  # of the median spread: where all curves agree, a band of no width would alarm at noise
SCREEN_RATE = 1e-3  # chance of a good curve to be left out of a baseline
MOST_DROPPED = 0.2  # of a baseline; if more is unlike the rest, there is no rest
LEAST_REACH = 0.95  # of the grid, that a curve must reach to be compared


class Envelope(msgspec.Struct, frozen=True, eq=False):
    """An envelope in force.

    Attributes:
        grid: x, (g,).
        mean: of the baseline, (g,).
        band: standard deviation of a new curve about the mean, (g,).
        limit: of the largest |z|.
        n: curves learned from.
    """

    grid: Floats
    mean: Floats
    band: Floats
    limit: float
    n: int

    def compare(self, x: Floats, y: Floats) -> Floats:
        """Standardised distance over the grid, (g,); NaN where the curve does not reach."""
        return (resample(x, y, self.grid) - self.mean) / self.band

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {"rows": pack(np.stack([self.grid, self.mean, self.band])), "limit": self.limit, "n": self.n}

    @staticmethod
    def load(saved: dict[str, Any]) -> "Envelope":
        """The envelope of `save`."""
        grid, mean, band = unpack(saved["rows"])
        return Envelope(grid, mean, band, saved["limit"], saved["n"])


class Doubt(msgspec.Struct, frozen=True):
    """Why a baseline gives no envelope: cause, the figure that says so, its bound, the same in words."""

    cause: str
    figure: float
    bound: float
    words: str


def resample(x: Floats, y: Floats, grid: Floats) -> Floats:
    """Y over the grid by straight lines, (g,); NaN where x does not reach. `x` ascends strictly, (n,) with n >= 2.

    >>> resample(np.array([0.0, 2.0]), np.array([0.0, 4.0]), np.array([0.0, 1.0, 2.0, 4.0])).tolist()
    [0.0, 2.0, 4.0, nan]
    """
    found = np.interp(grid, x, y)
    step = (grid[-1] - grid[0]) / max(len(grid) - 1, 1)
    found[(grid < x[0] - step) | (grid > x[-1] + step)] = np.nan
    return found


def limit_of(rate: float, nu: float, length: float, points: int) -> float:
    """Limit of the largest |z| of a curve for a rate of false alarms.

    Without any length it is that of one value of Student's t:

    >>> round(limit_of(0.05, 10, 0.0, 1), 4)
    2.2281
    """

    def chance(u: float) -> float:
        tail = t_upper_tail(u, nu)
        smooth = tail + length / (2 * math.pi) * (1 + u * u / nu) ** (-(nu - 1) / 2)
        return float(2 * min(smooth, points * tail))

    low, high = 0.0, 1.0
    while chance(high) > rate:
        low, high = high, 2 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if chance(middle) > rate else (low, middle)
    return high


def path_length(y: Floats) -> float:
    """Length of the path of the normalised residuals of curves (n, g) about their mean."""
    residual = y - y.mean(axis=0)
    size = np.sqrt(np.sum(residual * residual, axis=0))
    unit = residual / np.where(size > 0, size, 1.0)
    return float(np.sum(np.sqrt(np.sum(np.diff(unit, axis=1) ** 2, axis=0))))


def learn(grid: Floats, y: Floats, rate: float) -> Envelope | Doubt:
    """The envelope of a baseline.

    Args:
        grid: x, (g,).
        y: curves over it, (n, g); NaN where one does not reach.
        rate: false alarms a curve.
    """
    reach = np.isfinite(y).mean(axis=1) >= LEAST_REACH
    kept = reach.copy()
    for row in np.flatnonzero(reach).tolist():  # at the ends, where a curve is a little short, it goes on level
        there = np.flatnonzero(np.isfinite(y[row]))
        y[row] = np.interp(np.arange(y.shape[1]), there, y[row, there])
    while np.count_nonzero(kept) > 3:
        worst, how, limit = _strangest(y, kept)
        if how <= limit:
            break
        kept[worst] = False
    n, dropped = int(np.count_nonzero(kept)), int(np.count_nonzero(~kept))
    if dropped > MOST_DROPPED * len(y) or n < 3:
        words = (
            f"{dropped} of {len(y)} curves are unlike the rest, or too short. Let the machine settle, chart one phase, "
            "or give the range of x in which all are alike"
        )
        return Doubt("unstable", dropped / len(y), MOST_DROPPED, words)
    good = y[kept]
    band = _band(good) * math.sqrt(1 + 1 / n)
    if not band.any():
        return Doubt("constant", 0.0, 0.0, f"all {n} curves are the same to the digit: is the signal alive?")
    limit = limit_of(rate, n - 1, path_length(good), y.shape[1])
    return Envelope(grid, good.mean(axis=0), band, limit, n)


def _band(y: Floats) -> Floats:
    spread = y.std(axis=0, ddof=1)
    return np.asarray(np.maximum(spread, LEAST_SPREAD * np.median(spread[spread > 0])) if spread.any() else spread)


def _strangest(y: Floats, kept: NDArray[np.bool_]) -> tuple[int, float, float]:
    """The curve least like the others, its largest |z| by an envelope of the others, and the limit of that."""
    rows = np.flatnonzero(kept)
    worst, how = int(rows[0]), -1.0
    for row in rows.tolist():
        rest = y[np.setdiff1d(rows, [row])]
        band = _band(rest) * math.sqrt(1 + 1 / len(rest))
        away = np.abs(y[row] - rest.mean(axis=0))
        z = float(np.max(np.divide(away, band, out=np.where(away > 0, np.inf, 0.0), where=band > 0)))
        if z > how:
            worst, how = row, z
    n = len(rows)
    return worst, how, limit_of(SCREEN_RATE, n - 2, path_length(y[kept]), y.shape[1])
