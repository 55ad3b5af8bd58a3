"""Do values look normal? Anderson and Darling's test with estimated mean and standard deviation."""

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.distributions import normal_cdf

Floats = NDArray[np.float64]

LEVEL = 0.05
FEWEST = 8  # the approximation of the p-value holds from here


class Normality(msgspec.Struct, frozen=True):
    """What the test says.

    Attributes:
        normal: whether normal values are not ruled out at `LEVEL`.
        statistic: A², adjusted for n.
        p: chance of such a statistic in normal values.
        words: the same for a person.
    """

    normal: bool
    statistic: float
    p: float
    words: str


def anderson_darling(values: Floats) -> Normality:
    """Test n >= 8 values that are not all equal.

    Statistic and p-value: D'Agostino & Stephens, Goodness-of-Fit Techniques (1986), table 4.9, case 3.

    Raises:
        ValueError: for fewer than 8 values, or equal ones.

    >>> found = anderson_darling(np.arange(20.0))
    >>> round(found.statistic, 4), round(found.p, 3)
    (0.2303, 0.806)
    """
    n = len(values)
    sigma = float(np.std(values, ddof=1)) if n >= FEWEST else 0.0
    if not sigma > 0:
        raise ValueError(f"{n} values say nothing about their distribution: at least {FEWEST} different ones do")
    z = (np.sort(values) - np.mean(values)) / sigma
    below = np.maximum(normal_cdf(z), 1e-300)
    above = np.maximum(normal_cdf(-z[::-1]), 1e-300)  # of the values in falling order
    i = 2 * np.arange(1, n + 1) - 1
    a2 = -n - float(np.mean(i * (np.log(below) + np.log(above))))
    adjusted = a2 * (1 + 0.75 / n + 2.25 / n**2)
    p = _p_value(adjusted)
    seen = f"Anderson-Darling A² {adjusted:.3f}, p {'< 0.0001' if p < 1e-4 else f'{p:.4f}'}"
    words = f"normal is not ruled out ({seen})" if p >= LEVEL else f"not normal ({seen}, below {LEVEL})"
    return Normality(p >= LEVEL, adjusted, p, words)


def _p_value(a: float) -> float:
    if a >= 0.6:
        return math.exp(1.2937 - 5.709 * a + 0.0186 * a * a) if a < 13 else 0.0
    if a > 0.34:
        return math.exp(0.9177 - 4.279 * a - 1.38 * a * a)
    if a > 0.2:
        return 1 - math.exp(-8.318 + 42.796 * a - 59.938 * a * a)
    return 1 - math.exp(-13.436 + 101.14 * a - 223.73 * a * a)
