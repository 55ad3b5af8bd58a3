"""Yield: first-pass, rolled throughput, defects per unit and per million opportunities, sigma level, exact bounds."""

import math
from collections.abc import Sequence

import msgspec

from analytics.distributions import beta_quantile, normal_quantile

SHIFT = 1.5  # sigmas by which the convention of Six Sigma lets the mean move in the long term


class Step(msgspec.Struct, frozen=True):
    """What went through one operation.

    Attributes:
        units: units that went in.
        defective: units that were scrapped.
        reworked: units that were good only after rework.
    """

    units: int
    defective: int = 0
    reworked: int = 0


class Bound(msgspec.Struct, frozen=True):
    """A share and its exact interval."""

    share: float
    low: float
    high: float


def first_pass_yield(step: Step) -> float:
    """Share of units that were good without rework.

    >>> first_pass_yield(Step(100, 3, 2))
    0.95
    """
    return (step.units - step.defective - step.reworked) / step.units


def rolled_throughput_yield(steps: Sequence[Step]) -> float:
    """Chance of a unit to pass all operations without rework: the product of their first-pass yields.

    >>> round(rolled_throughput_yield([Step(100, 5), Step(100, 10)]), 3)
    0.855
    """
    return math.prod(first_pass_yield(step) for step in steps)


def final_yield(steps: Sequence[Step]) -> float:
    """Share of the units that went into the first operation which were not scrapped anywhere."""
    return 1 - sum(step.defective for step in steps) / steps[0].units


def dpu(defects: int, units: int) -> float:
    """Defects per unit."""
    return defects / units


def dpmo(defects: int, units: int, opportunities: int = 1) -> float:
    """Defects per million opportunities, `opportunities` of them a unit.

    >>> round(dpmo(20, 1915), 2)
    10443.86
    """
    return 1e6 * defects / (units * opportunities)


def sigma_level(per_million: float, shift: float = SHIFT) -> float:
    """The sigma level of a DPMO; `shift` is a convention and goes with the number: 4.0 sigma means "with 1.5 shift".

    Infinite for no defect at all, which no sample proves: take the upper bound of the share then.

    >>> round(sigma_level(6209.665), 3)
    4.0
    """
    share = per_million / 1e6
    if share <= 0:
        return math.inf
    return (normal_quantile(1 - share) if share < 1 else -math.inf) + shift


def dpmo_of_level(level: float, shift: float = SHIFT) -> float:
    """Defects per million beyond the nearer limit at a sigma level.

    >>> round(dpmo_of_level(6), 1)
    3.4
    """
    return 0.5e6 * math.erfc((level - shift) / math.sqrt(2))


def exact_bound(hits: int, n: int, confidence: float = 0.95) -> Bound:
    """The share and its two-sided interval (Clopper & Pearson, Biometrika 26, 1934).

    Raises:
        ValueError: unless 0 <= hits <= n and n > 0.

    >>> bound = exact_bound(2, 50)
    >>> round(bound.low, 4), round(bound.high, 4)
    (0.0049, 0.1371)
    """
    _check(hits, n)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else beta_quantile(tail, hits, n - hits + 1)
    high = 1.0 if hits == n else beta_quantile(1 - tail, hits + 1, n - hits)
    return Bound(hits / n, low, high)


def upper_bound(hits: int, n: int, confidence: float = 0.95) -> float:
    """What the share stays below, one-sided and exact. For 0 of n about 3 / n at 95 %: the rule of three.

    Raises:
        ValueError: unless 0 <= hits <= n and n > 0.

    >>> round(upper_bound(0, 3000) * 3000, 3)
    2.994
    """
    _check(hits, n)
    if hits == 0:
        return -math.expm1(math.log1p(-confidence) / n)
    return 1.0 if hits == n else beta_quantile(confidence, hits + 1, n - hits)


def _check(hits: int, n: int) -> None:
    if not (0 <= hits <= n and n > 0):
        raise ValueError(f"{hits} of {n} is no share")
