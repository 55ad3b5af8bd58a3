"""Is a process stable enough for capability indices? A control chart of the values themselves, and their sigma within.

ISO 22514-4 states capability only of a stable process, and calls it performance (Pp, Ppk) otherwise.
"""

import math
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import screen
from analytics.constants import c4, d2, d3
from analytics.distributions import f_upper_tail, normal_quantile
from analytics.limits import D2

Floats = NDArray[np.float64]
Within = Literal["moving-range", "pooled", "range", "std"]

LEVEL = 0.002  # chance of a stable process to be called unstable, half of it for each of the two tests
ENOUGH = 50  # values that are judged in groups; fewer are judged one by one
GROUP = 5


class Stability(msgspec.Struct, frozen=True):
    """Whether values are stable, and the figure that says so, in words."""

    stable: bool
    words: str


class Sigma(NamedTuple):
    """A standard deviation and its degrees of freedom."""

    value: float
    nu: float


def stability(values: Floats, group: int = 1) -> Stability:
    """Judge n >= 5 values in the order in which they came.

    From 50 values on they are judged in groups (of `group`, or of 5): the variance between groups against that within
    (F test: shifts, drifts and resemblance of neighbours all show there), and each mean against limits at which a
    stable process alarms in one of a thousand cases altogether. Fewer are screened like a baseline.
    """
    if len(values) < ENOUGH or len(values) < 8 * group:
        found = screen(values)
        if found.cause:
            return Stability(False, found.words.split(". ")[0])
        return Stability(True, f"{len(values)} values show no trend, resemblance or outliers")
    size = group if group > 1 else GROUP
    groups = in_groups(values, size)
    k = len(groups)
    means, within = groups.mean(axis=1), float(np.mean(groups.var(axis=1, ddof=1)))
    between = size * float(np.var(means, ddof=1))
    if within <= 0:
        return Stability(False, f"values within groups of {size} do not vary at all")
    ratio = between / within
    if f_upper_tail(ratio, k - 1, k * (size - 1)) < LEVEL / 2:
        words = f"the mean moves: variance between groups of {size} is {ratio:.1f} times that within (1 if stable)"
        return Stability(False, words)
    width = normal_quantile(1 - LEVEL / 4 / k)
    away = np.abs(means - means.mean()) / math.sqrt(within / size)
    out = int(np.count_nonzero(away > width))
    if out:
        return Stability(False, f"{out} of {k} means of {size} are beyond {width:.2f} sigma of the mean")
    return Stability(True, f"{k} means of {size} within {width:.2f} sigma; variance ratio {ratio:.2f}")


def in_groups(values: Floats, size: int) -> Floats:
    """Values in a row, `size` to a group, (k, size); a rest is left out."""
    k = len(values) // size
    return values[: k * size].reshape(k, size)


def within_sigma(values: Floats, group: int = 1, method: Within | None = None) -> Sigma:
    """Sigma of the short term, from neighbours alone.

    `moving-range`: mean moving range / d2(2), about 0.62 (n - 1) degrees of freedom (Bissell 1990). `pooled`: root mean
    of the variances of groups. `range` and `std`: mean range / d2, mean standard deviation / c4; the degrees of freedom
    are those of a chi distribution with the same relative spread (Patnaik 1950).

    Raises:
        ValueError: for fewer than two values, or two groups.

    >>> round(within_sigma(np.array([1.0, 3.0, 2.0, 4.0])).value, 4)
    1.477
    """
    method = method or ("moving-range" if group == 1 else "pooled")
    if len(values) < 2 * group or len(values) < 2:
        raise ValueError(f"{len(values)} values are no two groups of {group}")
    if method == "moving-range":
        return Sigma(float(np.mean(np.abs(np.diff(values)))) / D2, 0.62 * (len(values) - 1))
    groups = in_groups(values, group)
    k = len(groups)
    if method == "pooled":
        return Sigma(math.sqrt(float(np.mean(groups.var(axis=1, ddof=1)))), float(k * (group - 1)))
    if method == "range":
        return Sigma(float(np.mean(np.ptp(groups, axis=1))) / d2(group), 0.5 * k * (d2(group) / d3(group)) ** 2)
    unbiased = c4(group)
    nu = 0.5 * k * unbiased**2 / (1 - unbiased**2)
    return Sigma(float(np.mean(groups.std(axis=1, ddof=1))) / unbiased, nu)
