"""Figures of a curve for `[[curve.rule]]`: ramps, dwells, lags, extremes, values, by straight lines between readings.

>>> import numpy as np
>>> x = np.array([0.0, 10.0, 20.0, 30.0])
>>> y = np.array([20.0, 120.0, 180.0, 180.0])
>>> rule = CurveRule(kind="ramp", band=(60.0, 120.0), max=9.0)
>>> figure(rule, x, y)
10.0
>>> round(figure(CurveRule(kind="dwell", band=(170.0, 190.0), min=15.0), x, y), 3)
11.667
"""

import numpy as np
from numpy.typing import NDArray

from analytics.curves.config import PER, CurveRule

Floats = NDArray[np.float64]


def figure(rule: CurveRule, x: Floats, y: Floats, other: Floats | None = None) -> float:
    """The figure that a rule judges; NaN where the curve does not say it.

    Args:
        rule: which one.
        x: ascending, (n,).
        y: (n,).
        other: for a lag, the other signal at these x, (n,).
    """
    if rule.range is not None:
        use = (x >= rule.range[0]) & (x <= rule.range[1])
        x, y, other = x[use], y[use], None if other is None else other[use]
    if len(x) == 0:
        return np.nan
    per = PER[rule.per]
    if rule.kind == "ramp":
        assert rule.band is not None
        start = crossing(x, y, rule.band[0], up=rule.band[1] > rule.band[0])
        after = x >= start
        end = crossing(x[after], y[after], rule.band[1], up=rule.band[1] > rule.band[0])
        return float((rule.band[1] - rule.band[0]) / (end - start) * per) if end > start else np.nan
    if rule.kind == "dwell":
        assert rule.band is not None
        return longest_stay(x, y, *rule.band) / per
    if rule.kind == "lag":
        apart = np.abs(y - other) if other is not None else np.zeros(0)
        apart = apart[np.isfinite(apart)]
        return float(apart.max()) if len(apart) else np.nan
    if rule.kind == "value":
        inside = x[0] <= (rule.at or 0.0) <= x[-1]
        return float(np.interp(rule.at or 0.0, x, y)) if inside else np.nan
    return float(y.max() if rule.kind == "highest" else y.min())


def crossing(x: Floats, y: Floats, level: float, *, up: bool) -> float:
    """The first x at which y comes to a level from below (`up`) or above; NaN if it never gets there.

    Where y begins beyond the level and never comes to it again, that is the start.
    """
    beyond = y >= level if up else y <= level
    comes = np.flatnonzero(beyond[1:] & ~beyond[:-1]) + 1
    if len(comes) == 0:
        return float(x[0]) if len(x) and beyond[0] else np.nan
    at = int(comes[0])
    return float(x[at - 1] + (x[at] - x[at - 1]) * (level - y[at - 1]) / (y[at] - y[at - 1]))


def longest_stay(x: Floats, y: Floats, low: float, high: float) -> float:
    """The longest unbroken stretch of x with y within [low, high], crossings interpolated; 0 if there is none."""
    best, since = 0.0, np.nan
    inside = (y >= low) & (y <= high)
    for i in range(len(x)):
        if inside[i] and not (i and inside[i - 1]):
            since = float(x[i])
            if i:  # it came in between two readings, over the bound that it was beyond
                level = low if y[i - 1] < low else high
                since = float(x[i - 1] + (x[i] - x[i - 1]) * (level - y[i - 1]) / (y[i] - y[i - 1]))
        if inside[i]:
            best = max(best, float(x[i]) - since)
        elif i and inside[i - 1]:
            level = low if y[i] < low else high
            left = float(x[i - 1] + (x[i] - x[i - 1]) * (level - y[i - 1]) / (y[i] - y[i - 1]))
            best = max(best, left - since)
    return best


def against_bounds(rule: CurveRule, value: float) -> str:
    """Words if a figure is beyond its rule's bounds, else empty."""
    if rule.min is not None and value < rule.min:
        return f"{value:.4g}, below {rule.min:.4g}"
    if rule.max is not None and value > rule.max:
        return f"{value:.4g}, above {rule.max:.4g}"
    return ""
