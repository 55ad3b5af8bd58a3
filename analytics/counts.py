"""How many defects chance allows in the next sample, given those of a baseline: limits for counts.

The next count of `size` items, given D defective in N, is beta-binomial with Jeffreys' prior (D + 1/2, N - D + 1/2);
the next count of defects in an area of `size`, given D in N, is negative binomial (gamma-Poisson, D + 1/2). Limits from
these keep the rate of false alarms although the baseline is finite and counts are skewed; 3-sigma limits do neither.
Source: Hamada, Journal of Quality Technology 34 (2002). Counts are whole numbers: the rate is at most the designed one.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_SIZE = 1_000_000.0
_WIDE = 14.0  # standard deviations that are looked at


@lru_cache(maxsize=4096)
def count_limits(found: float, of: float, size: float, rate: float, *, binomial: bool) -> tuple[int, int]:
    """(lowest, highest) count that is no alarm; `rate` is split between the sides, if the lower side can alarm.

    Args:
        found: defects, or defective items, in the baseline.
        of: items, or area, of the baseline.
        size: of the next sample.
        rate: of false alarms, both sides together.
        binomial: defective items (p, np); else defects (c, u).

    >>> count_limits(347, 1500, 50, 0.0027, binomial=True)
    (3, 21)
    >>> count_limits(516, 26, 1, 0.0027, binomial=False)
    (8, 35)
    """
    first, chance = _distribution(found, of, size, binomial=binomial)
    below = np.cumsum(chance)
    low = first + int(np.searchsorted(below, 0.5 * rate, side="right"))
    share = 0.5 * rate if low > 0 else rate
    above = np.cumsum(chance[::-1])[::-1]  # P(X >= first + i)
    high = first + int(np.searchsorted(-above, -share, side="left")) - 1
    return low, high


def _distribution(found: float, of: float, size: float, *, binomial: bool) -> tuple[int, Floats]:
    """The lowest count that is looked at, and the chances of it and those above."""
    a = found + 0.5
    if binomial:
        b = of - found + 0.5
        mean, most = size * a / (a + b), int(size)
        variance = mean * b / (a + b) * (a + b + size) / (a + b + 1)
    else:
        mean, most = size * a / of, 2**53
        variance = mean * (1 + size / of)
    half = _WIDE * math.sqrt(variance) + 30
    first, last = max(0, int(mean - half)), min(most, int(mean + half) + 1)
    k = np.arange(first, last + 1)
    if binomial:
        log = [
            math.lgamma(size + 1) - math.lgamma(i + 1) - math.lgamma(size - i + 1)
            + math.lgamma(i + a) + math.lgamma(size - i + b) - math.lgamma(size + a + b)
            for i in k.tolist()
        ]  # fmt: skip
        log_p = np.array(log) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    else:
        log = [math.lgamma(i + a) - math.lgamma(i + 1) for i in k.tolist()]
        log_p = np.array(log) - math.lgamma(a) + a * math.log(of / (of + size)) + k * math.log(size / (of + size))
    return first, np.asarray(np.exp(log_p))
