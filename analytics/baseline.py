"""May limits be frozen on this baseline? Phase I screening, with the figure that refuses it.

A baseline is refused if it is constant, has a trend, has too many outliers, or if neighbouring values resemble each
other more than chance allows: limits for independent values would then flood people with false alarms. Independent
normal values are refused in less than 1 of 100 cases. Fewer than 50 values say little about resemblance: prefer 100.
A short baseline that resembles itself, but not beyond chance, is not refused: limits are widened for the lag-1
correlation that it shows (`Screening.phi`; bias corrected as by Kendall 1954).
"""

import math
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.distributions import normal_quantile, t_quantile

Floats = NDArray[np.float64]
Cause = Literal["constant", "outliers", "trend", "autocorrelated", "between", "overdispersed", "recipes", "wandering"]

OUTLIER_LEVEL = 0.01  # chance that independent normal values show any outlier
OUTLIER_SHARE = 0.05  # more than this share (and more than one value) is no baseline
TREND_LEVEL = 0.003  # two-sided chance of a slope in independent values
DOUBT_LEVEL = 0.2  # one-sided chance in independent values of a lag-1 correlation that limits allow for
SHORT_DOUBT_LEVEL = 0.5  # the same for a baseline of 30
ENOUGH = 100  # values that say enough about resemblance
MOST_DOUBT = 0.7
DOUBT_STEP = 0.05
RESEMBLANCE_LEVEL = 0.006  # one-sided chance of the lag-1 correlation in independent values


class Screening(msgspec.Struct, frozen=True, eq=False):
    """What screening says about a baseline.

    Attributes:
        kept: the values that are no outliers, (n,).
        cause: why it is refused; empty if it is not.
        figure: the number that refuses it.
        bound: the bound that the number broke.
        words: the same for a person, with what to do.
        phi: lag-1 correlation that limits should allow for; 0 if chance explains what there is.
    """

    kept: NDArray[np.bool_]
    cause: Cause | Literal[""]
    figure: float
    bound: float
    words: str
    phi: float = 0.0


def screen(values: Floats) -> Screening:
    """Judge a baseline of n >= 5 values, in the order in which they came."""
    n = len(values)
    everything = np.ones(n, bool)
    if _constant(values):
        words = f"all {n} values are {values[0]:.6g}: the signal does not vary, or the sensor is stuck"
        return Screening(everything, "constant", 0.0, 0.0, words)
    allowed = max(1, int(OUTLIER_SHARE * n))
    outliers = _outliers(values, allowed + 1)
    resembles, most = lag1(values), lag1_bound(n)
    slope, steepest = _slope(values)
    if resembles > most and lag1(_detrended(values)) > most:
        words = (
            f"neighbouring values resemble each other: lag-1 correlation {resembles:.2f}, at most {most:.2f} is chance "
            f'in {n} values. Use longer windows (`per = "60s"` or `per = "part"`) or a residual chart '
            '(`kind = "residual"`)'
        )
        return Screening(everything, "autocorrelated", resembles, most, words)
    if abs(slope) > steepest:
        words = (
            f"the values run {'up' if slope > 0 else 'down'}: slope is {abs(slope):.1f} standard errors, at most "
            f"{steepest:.1f} is chance in {n} values. Let the machine settle, or mend the drift"
        )
        return Screening(everything, "trend", slope, steepest, words)
    if len(outliers) > allowed:
        words = f"{len(outliers)} or more of {n} values are outliers (at most {allowed}): find and mend their cause"
        return Screening(everything, "outliers", float(len(outliers)), float(allowed), words)
    kept = everything.copy()
    kept[outliers] = False
    if _constant(values[kept]):
        words = f"all but {len(outliers)} of {n} values are {np.median(values):.6g}: the signal hardly varies"
        return Screening(everything, "constant", 0.0, 0.0, words)
    return Screening(kept, "", 0.0, 0.0, "", phi=_doubt(values[kept]))


def _doubt(values: Floats) -> float:
    """The lag-1 correlation that limits should allow for, of values that passed; 0 if independent ones show as much.

    A short baseline that passed may belong to a correlated process all the same: below `ENOUGH` values, less is asked
    for a doubt, and up to one standard error is added.
    """
    n = len(values)
    short = min(max((ENOUGH - n) / ENOUGH, 0.0), 0.7) / 0.7
    resembles = lag1(values)
    if resembles <= lag1_bound(n, DOUBT_LEVEL + (SHORT_DOUBT_LEVEL - DOUBT_LEVEL) * short):
        return 0.0
    phi = (n * resembles + 1) / (n - 4) + short / math.sqrt(n)
    # Up to the next step: nothing finer can be known, and charts with equal doubts share one design.
    return min(max(math.ceil(phi / DOUBT_STEP) * DOUBT_STEP, 0.0), MOST_DOUBT)


def _constant(values: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-12 * np.max(np.abs(values)))


def lag1(values: Floats) -> float:
    """Lag-1 autocorrelation coefficient r1 (Box & Jenkins)."""
    d = values - np.mean(values)
    return float(np.sum(d[1:] * d[:-1]) / np.sum(d * d))


def lag1_bound(n: int, level: float = RESEMBLANCE_LEVEL) -> float:
    """What r1 of n independent values stays below, but for `level`.

    Its mean is -1/n and its variance (n - 2)^2 / (n^2 (n - 1)) for normal values (Anderson 1942; Moran 1948).
    """
    return -1 / n + normal_quantile(1 - level) * (n - 2) / (n * math.sqrt(n - 1))


def _detrended(values: Floats) -> Floats:
    x = np.arange(len(values)) - 0.5 * (len(values) - 1)
    return np.asarray(values - np.mean(values) - np.sum(x * values) / np.sum(x * x) * x)


def _slope(values: Floats) -> tuple[float, float]:
    """Slope of the least-squares line in standard errors, and what chance allows (t test)."""
    n = len(values)
    x = np.arange(n) - 0.5 * (n - 1)
    left = _detrended(values)
    residual = float(np.sum(left * left)) / (n - 2)
    slope = float(np.sum(x * values) / np.sum(x * x))
    error = math.sqrt(residual / float(np.sum(x * x)))
    return slope / max(error, 1e-300), t_quantile(1 - TREND_LEVEL / 2, n - 2)


def _outliers(values: Floats, most: int) -> list[int]:
    """Rows of outliers, at most `most`, by the generalised extreme Studentised deviate test (Rosner 1983)."""
    rows = np.arange(len(values))
    removed: list[int] = []
    found = 0
    for i in range(1, most + 1):
        left = values[rows]
        away = np.abs(left - np.mean(left))
        sigma = float(np.std(left, ddof=1))
        if sigma == 0:
            break
        worst = int(np.argmax(away))
        removed.append(int(rows[worst]))
        size = len(left)
        t = t_quantile(1 - OUTLIER_LEVEL / (2 * size), size - 2)
        if away[worst] / sigma > (size - 1) * t / math.sqrt((size - 2 + t * t) * size):
            found = i
        rows = np.delete(rows, worst)
    return removed[:found]
