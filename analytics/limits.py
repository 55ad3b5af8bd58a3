"""Control limits: the textbook's, and limits designed for a rate of false alarms.

Limits learned from n values are uncertain. Textbook limits ignore that and alarm far too often (an EWMA learned from 30
values about three times). Designed limits are wider, so that the rate of false alarms, averaged over what the baseline
might have been, is the designed one: E[1 / ARL(estimation error)] = 1 / ARL0, by quadrature over the error of the mean
(normal) and of the standard deviation (chi). For an individuals chart with rule 1 alone this is exact: Student's t
prediction interval (Hahn & Meeker, Statistical Intervals, 4.8).

A baseline whose neighbours resemble each other (lag-1 coefficient phi), not enough to be refused, is worth fewer values
and gives an EWMA or CUSUM that moves more. Both are allowed for: the effective number of values (Bayley & Hammersley,
1946), and the variance of an EWMA of an AR(1) series (Schmid 1997).
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.arl import cusum_arl, ewma_arl
from analytics.distributions import normal_quantile, t_quantile
from analytics.ruleset import RuleSet

Floats = NDArray[np.float64]

D2 = 2.0 / math.sqrt(math.pi)  # d2(2): mean range of two standard normal values
SHEWHART_ARL0 = 1.0 / (2.0 * 0.0013498980316300946)  # 370.398: rule 1 at 3 sigma
WIDEST = 1.7  # cap on the widening of zones: run rules that look at the side alone cannot be widened


NARROWEST_EWMA, WIDEST_EWMA = 0.05, 12.0
WIDEST_CUSUM = 40.0  # sigmas: beyond, a CUSUM learned from so few values does not find anything


class Estimate(msgspec.Struct, frozen=True):
    """What a baseline says.

    Attributes:
        center: mean of the charted values.
        sigma: standard deviation of one charted value.
        n: charted values, or subgroups, that it comes from.
        phi: lag-1 autocorrelation that limits allow for, 0 to below 1.
        model: what a kind of chart needs beyond; its file says what.
    """

    center: float
    sigma: float
    n: int
    phi: float = 0.0
    model: tuple[float, ...] = ()


class Error(msgspec.Struct, frozen=True):
    """How far an estimate may be off, in true sigmas of a charted value.

    Attributes:
        mean: standard deviation of the centre's error.
        nu: degrees of freedom of sigma; 0 if centre and sigma are known.
        scale: sigma is distributed as scale * sigma * chi(nu) / sqrt(nu).
    """

    mean: float = 0.0
    nu: float = 0.0
    scale: float = 1.0


KNOWN = Error()
LIMIT_ALONE = RuleSet()


class Design(msgspec.Struct, frozen=True):
    """Where limits stand, in estimated sigmas of a charted value.

    Attributes:
        width: control limits stand at centre +/- width * sigma.
        arl0: one false alarm in so many values, on average over the estimation error.
        second_rate: false alarms a subgroup of the second plot, of ranges or standard deviations; part of `arl0`.
    """

    width: float
    arl0: float
    second_rate: float = 0.0


def moving_range_estimate(values: Floats) -> Estimate:
    """Mean and sigma = mean moving range / d2(2), the textbook's for individuals (Montgomery 6.4).

    >>> round(moving_range_estimate(np.array([1.0, 3.0, 2.0, 4.0])).sigma, 4)
    1.477
    """
    sigma = float(np.mean(np.abs(np.diff(values)))) / D2
    return Estimate(float(np.mean(values)), sigma, len(values))


def spread_estimate(values: Floats) -> Estimate:
    """Mean and sample standard deviation (two passes): what designed limits use.

    It needs fewer values than the moving range for the same certainty, its distribution is known exactly, and it does
    not shrink when neighbours resemble each other.
    """
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))


def textbook_individuals(estimate: Estimate, width: float = 3.0) -> tuple[float, float]:
    """(LCL, UCL) = centre -/+ width * sigma."""
    return estimate.center - width * estimate.sigma, estimate.center + width * estimate.sigma


def textbook_ewma(estimate: Estimate, lam: float, width: float, index: int | None = None) -> tuple[float, float]:
    """(LCL, UCL) of an EWMA at the `index`-th value (from 1), or in the steady state (Montgomery 9.2).

    `estimate.sigma` is that of one charted value: of the mean, if means are charted.
    """
    growth = 1.0 if index is None else 1.0 - (1.0 - lam) ** (2 * index)
    half = width * estimate.sigma * math.sqrt(lam / (2.0 - lam) * growth)
    return estimate.center - half, estimate.center + half


def error_of(n: int, phi: float = 0.0) -> Error:
    """The error of mean and sample standard deviation of n normal values, an AR(1) series if `phi` is not 0.

    >>> round(error_of(30).nu, 1), round(error_of(30, 0.5).nu, 1)
    (29.0, 17.4)
    """
    if n == 0:
        return KNOWN
    memory = min((1 + phi) / (1 - phi), 0.5 * n)  # variance of the mean, in that of independent values
    effective = max((n - 1) * (1 - phi * phi) / (1 + phi * phi), 2.0)
    return Error(math.sqrt(memory / n), effective, math.sqrt((n - memory) / (n - 1)))


def design_shewhart(error: Error, chosen: RuleSet, arl0: float | None = None) -> Design:
    """Width of rule 1 (the zones are thirds of it) for a centre and sigma with an estimation error."""
    target = float(chosen.arl()) if arl0 is None else arl0
    if chosen.limit_alone:
        if error.nu == 0:
            return Design(normal_quantile(1 - 0.5 / target), target)
        width = t_quantile(1 - 0.5 / target, error.nu) * math.sqrt(1 + error.mean**2) / error.scale
        return Design(width, target)
    unit, got = _solve("rules", chosen, 0.0, error, target)
    return Design(3 * unit, got)


def design_individuals(n: int, chosen: RuleSet = LIMIT_ALONE, arl0: float | None = None, *, phi: float = 0.0) -> Design:
    """Width of rule 1 (the zones are thirds of it) for limits learned from `n` values.

    Args:
        n: values in the baseline; 0 for known mean and sigma.
        chosen: the rules.
        arl0: in-control values per false alarm; None takes what the rules have at 3 sigma (370.4 for rule 1).
        phi: lag-1 autocorrelation of the baseline.

    >>> round(design_individuals(30).width, 3)
    3.335
    """
    return design_shewhart(error_of(n, phi), chosen, arl0)


def design_ewma(n: int, lam: float, arl0: float | None = None, *, phi: float = 0.0) -> Design:
    """Width of an EWMA chart, in sigmas of one charted value, for limits learned from `n` values (0: known).

    >>> round(design_ewma(0, 0.2, 500.0).width / math.sqrt(0.2 / 1.8), 3)
    2.962
    """
    width, got = _solve("ewma", lam, 0.0, error_of(n, phi), SHEWHART_ARL0 if arl0 is None else arl0)
    kept = phi * (1 - lam)
    return Design(width * math.sqrt(lam / (2 - lam) * (1 + kept) / (1 - kept)), got)


def design_cusum(
    n: int, reference: float, arl0: float | None = None, *, head_start: float = 0.0, phi: float = 0.0
) -> Design:
    """Decision interval h of a CUSUM, in sigmas of one charted value, for limits learned from `n` values (0: known).

    `phi` scales h by the variance that sums of an AR(1) series have, (1 + phi) / (1 - phi).

    >>> round(design_cusum(0, 0.5, 465.44).width, 3)
    5.0
    """
    target = SHEWHART_ARL0 if arl0 is None else arl0
    width, got = _solve("cusum", reference, head_start, error_of(n, phi), target)
    return Design(width * (1 + phi) / (1 - phi), got)


def longest_arl0(chosen: RuleSet) -> float:
    """The longest ARL0 that widening the zones can give a rule set: rule 4 alone alarms every 255 values."""
    return float(chosen.arl(_widest(chosen)))


@lru_cache(maxsize=64)
def _widest(chosen: RuleSet) -> float:
    """Where widening stops: Nelson's test 7 (values within 1 sigma) alarms more often in wide zones."""
    units = np.linspace(0.9, WIDEST, 33)
    return float(units[np.argmax(chosen.arl(units))])


@lru_cache(maxsize=1024)
def _solve(
    kind: Literal["rules", "ewma", "cusum"], what: RuleSet | float, head_start: float, error: Error, target: float
) -> tuple[float, float]:
    """The width at which the expected rate of false alarms is 1 / target, and the ARL0 that it gives."""
    shift, spread, weight = _estimation_error(error)

    @lru_cache(maxsize=100)
    def rate(width: float) -> float:
        if isinstance(what, RuleSet):
            lengths = what.arl(width * spread, shift)
        elif kind == "ewma":
            lengths = ewma_arl(what, width * spread, shift)
        else:
            lengths = cusum_arl(what * spread, width * spread, shift, head_start=head_start)
        return float(np.sum(weight / np.maximum(np.abs(lengths), 1.0)))

    if isinstance(what, RuleSet):
        low, high = 0.2, _widest(what)
    elif kind == "ewma":
        low, high = _ewma_bracket(rate, target)
    else:
        low, high = _cusum_bracket(rate, what, target)
    if rate(high) > 1.0 / target:
        return high, 1.0 / rate(high)
    width = _falling_root(lambda w: math.log(max(rate(w), 1e-300) * target), low, high)
    return round(width, 6), target


def _ewma_bracket(rate: Callable[[float], float], target: float) -> tuple[float, float]:
    """Where L is: from the width of single values upwards, as far as the estimation error takes it, or below."""
    high = normal_quantile(1 - 0.5 / target)
    low = 0.7 * high
    while low > NARROWEST_EWMA and rate(low) < 1.0 / target:
        low, high = 0.5 * low, low
    while rate(high) > 1.0 / target and high < WIDEST_EWMA:
        low, high = high, 1.2 * high
    return low, high


def _cusum_bracket(rate: Callable[[float], float], reference: float, target: float) -> tuple[float, float]:
    """Where h is: from Siegmund's approximation for known parameters (1985) upwards, as far as it takes."""
    low, high = 0.2, math.log(1 + 4 * reference * reference * target) / (2 * reference)
    while rate(high) > 1.0 / target and high < WIDEST_CUSUM:
        low, high = high, 1.3 * high + 0.3
    return low, high


def _falling_root(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, by regula falsi with the Illinois change."""
    f_low, f_high = f(low), f(high)
    for _ in range(60):
        middle = (low * f_high - high * f_low) / (f_high - f_low)
        value = f(middle)
        if abs(value) < 3e-5:
            return middle
        if value > 0:
            low, f_low, f_high = middle, value, 0.5 * f_high
        else:
            high, f_high, f_low = middle, value, 0.5 * f_low
        if high - low < 1e-9:
            break
    return 0.5 * (low + high)


@lru_cache(maxsize=256)
def _estimation_error(error: Error) -> tuple[Floats, Floats, Floats]:
    """Nodes and weights: error of the mean and estimated sigma, in true sigmas."""
    if error.nu == 0:
        return np.zeros(1), np.ones(1), np.ones(1)
    x, mean_weight = np.polynomial.hermite_e.hermegauss(6)
    positive = x > 0  # charts are symmetric: half the nodes do
    off, mean_weight = error.mean * x[positive], mean_weight[positive]
    nu = error.nu
    half = 5.0 / math.sqrt(2 * nu)
    y, spread_weight = np.polynomial.legendre.leggauss(14)
    low, high = max(1 - half, 0.02), 1 + half
    s = 0.5 * (low + high) + 0.5 * (high - low) * y
    log_density = (nu - 1) * np.log(s) - 0.5 * nu * s * s
    spread_weight = spread_weight * np.exp(log_density - log_density.max())
    a, b = np.meshgrid(off, error.scale * s, indexing="ij")
    weight = np.outer(mean_weight / mean_weight.sum(), spread_weight / spread_weight.sum())
    return a.ravel(), b.ravel(), weight.ravel()


def sigma_error(error: Error) -> tuple[Floats, Floats]:
    """Nodes and weights of the estimated sigma alone, in true sigmas."""
    _, spread, weight = _estimation_error(error)
    _, first = np.unique(spread, return_index=True)
    total = np.array([weight[spread == spread[i]].sum() for i in first])
    return spread[first], total
