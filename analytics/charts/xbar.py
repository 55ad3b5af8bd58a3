"""Charts of subgroups: means with ranges (x-bar R) or with standard deviations (x-bar S).

Means stand against centre +/- width * sigma / sqrt(n), with run rules; ranges or standard deviations against limits of
their own, whose rule is `spread`. Sigma is that within subgroups: mean range / d2, or the pooled standard deviation.
Source: Montgomery, Introduction to Statistical Quality Control, 6.2 and 6.3 (also for subgroups of different sizes);
ISO 7870-2. Textbook lines: `textbook_means`, `textbook_spreads`. Limits in force are designed: the two plots share the
rate of false alarms, and the baseline's uncertainty is in it (Student's t, F, and the range's own distribution).

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> bank = XbarBank(ChartConfig(kind="xbar-s", signals=("cnc-07/diameter",), subgroup=5))
>>> bank.grow(1)
>>> x = np.random.default_rng(1).normal(74.0, 0.01, size=(40, 5))
>>> learned = bank.estimate(np.column_stack([x.mean(axis=1), x.std(axis=1, ddof=1), np.full(40, 5.0)]))
>>> lines = bank.freeze(0, learned, bank.design(learned))
>>> print(f"{lines.lcl:.4f} {lines.center:.4f} {lines.ucl:.4f}")
73.9851 73.9993 74.0134
"""

import math
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import Screening, screen
from analytics.charts.base import Floats, Judgement, Lines, Spread
from analytics.config import ChartConfig
from analytics.constants import c4, d2, d3, range_cdf
from analytics.distributions import f_quantile
from analytics.limits import SHEWHART_ARL0, Design, Error, Estimate, design_shewhart, sigma_error
from analytics.ruleset import RuleMemory
from analytics.state import grow, pack, unpack

BETWEEN_LEVEL = 0.003  # chance that subgroups of one mean are refused
OUTLIER_LEVEL = 0.01  # chance that subgroups of one spread show any outlier
_CENTER, _SIGMA, _WIDTH, _NU, _RATE = range(5)  # columns of the state


class XbarBank:
    """See `analytics.charts.base.ChartBank`. An item is (mean, range or std, size).

    `Estimate.sigma` is that of one value within a subgroup; `Estimate.model` is (degrees of freedom, average size).
    """

    drops_outliers: bool = True

    def __init__(self, config: ChartConfig) -> None:
        self._ranges = config.kind == "xbar-r"
        self.columns: tuple[str, ...] = ("mean", "range" if self._ranges else "std", "size")
        self._rules = RuleMemory(config.rule_set)
        self.rule_names: tuple[str, ...] = (*config.rule_set.names, "spread")
        self._arl0 = config.design_arl0
        self._state = np.zeros((0, 5))

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._state = grow(self._state, channels)
        self._rules.grow(channels)

    def usable(self, items: Floats) -> NDArray[np.bool_]:
        """Subgroups of two values or more."""
        return np.asarray((items[:, 2] >= 2) & np.isfinite(items).all(axis=1))

    def screen(self, items: Floats) -> Screening:
        """Means are screened like values; then spreads, and whether means differ by more than values within."""
        mean, size = items[:, 0], items[:, 2]
        found = screen(mean)
        if found.cause:
            return found
        everything = np.ones(len(items), bool)
        sigma, nu = self._sigma(items)
        if sigma <= 1e-12 * float(np.max(np.abs(mean))):
            words = "values within a subgroup do not differ: chart single values, or mend the sensor"
            return Screening(everything, "constant", 0.0, 0.0, words)
        kept = found.kept & ~self._wild(items, sigma, nu)
        lost, allowed = len(kept) - int(np.sum(kept)), max(1, len(kept) // 20)
        if lost > allowed:
            words = f"{lost} of {len(kept)} subgroups are outliers (at most {allowed}): find and mend their cause"
            return Screening(everything, "outliers", float(lost), float(allowed), words)
        sigma, nu = self._sigma(items[kept])
        m = int(np.sum(kept))
        average = np.sum((size * mean)[kept]) / np.sum(size[kept])
        ratio = float(np.sum((size * (mean - average) ** 2)[kept])) / (m - 1) / sigma**2
        bound = f_quantile(1 - BETWEEN_LEVEL, m - 1, nu)
        if ratio > bound:
            words = (
                f"subgroup means differ by more than the values within: variance ratio {ratio:.1f}, at most "
                f'{bound:.1f} is chance. Limits from within would flood you: use `kind = "individuals"` on windows or '
                "parts, or find what differs between subgroups"
            )
            return Screening(everything, "between", ratio, bound, words)
        return msgspec.structs.replace(found, kept=kept, phi=0.0)

    def _wild(self, items: Floats, sigma: float, nu: float) -> NDArray[np.bool_]:
        """Subgroups whose spread no chance gives."""
        rate = OUTLIER_LEVEL / len(items)
        low, high = self._spread_limits(items[:, 2], np.full(len(items), nu), np.full(len(items), 2 * rate))
        return np.asarray((items[:, 1] > high * sigma) | (items[:, 1] < low * sigma))

    def _sigma(self, items: Floats) -> tuple[float, float]:
        """Sigma within subgroups, and its degrees of freedom."""
        size = items[:, 2]
        if not self._ranges:
            nu = float(np.sum(size - 1))
            return math.sqrt(float(np.sum((size - 1) * items[:, 1] ** 2)) / nu), nu
        n = size.astype(np.intp).tolist()
        sigma = float(np.mean([r / d2(k) for r, k in zip(items[:, 1].tolist(), n, strict=True)]))
        spread = sum((d3(k) / d2(k)) ** 2 for k in n) / len(n) ** 2  # variance of sigma, in squared sigmas
        return sigma, _freedom(spread)

    def estimate(self, items: Floats) -> Estimate:
        """Mean of all values, sigma within subgroups."""
        size = items[:, 2]
        sigma, nu = self._sigma(items)
        center = float(np.sum(size * items[:, 0]) / np.sum(size))
        return Estimate(center, sigma, len(items), model=(nu, float(np.mean(size))))

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """The means' width; means and spreads have half of the false alarms each, unless rules leave them less."""
        nu = estimate.model[0] if estimate.model else 4.0 * estimate.n
        error = Error(1 / math.sqrt(estimate.n), nu, self._scale(nu)) if estimate.n else Error()
        target = arl0 or self._arl0 or (SHEWHART_ARL0 if self._rules.chosen.limit_alone else None)
        means = design_shewhart(error, self._rules.chosen, None if target is None else 2 * target)
        rate = 0.5 / target if target is not None else 0.5 / SHEWHART_ARL0
        return Design(means.width, 1 / (1 / means.arl0 + rate), rate)

    def _scale(self, nu: float) -> float:
        """Sigma from ranges is unbiased; chi(nu) / sqrt(nu) is below 1 on average."""
        return 1 / c4(nu + 1) if self._ranges else 1.0

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and forget its runs. The lines are those of a subgroup of average size."""
        nu, size = estimate.model or (4.0 * estimate.n, 5.0)
        self._state[channel] = estimate.center, estimate.sigma, design.width, nu, design.second_rate
        self._rules.forget(channel)
        half = design.width * estimate.sigma / math.sqrt(size)
        return Lines(estimate.center - half, estimate.center, estimate.center + half)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one subgroup for each of k channels."""
        state = self._state[channel]
        mean, spread, size = items[:, 0], items[:, 1], items[:, 2]
        center, sigma = state[:, _CENTER], state[:, _SIGMA]
        half = state[:, _WIDTH] * sigma / np.sqrt(size)
        violation = self._rules.step(channel, mean, center, half)
        low, high = self._spread_limits(size, state[:, _NU], state[:, _RATE])
        low, high = low * sigma, high * sigma
        wide = ((spread > high) | (spread < low)).astype(np.uint16)
        expected = np.array([d2(int(n)) if self._ranges else c4(n) for n in size.tolist()]) * sigma
        return Judgement(
            mean, center - half, center + half, violation | (wide << np.uint16(len(self.rule_names) - 1)),
            Spread(spread, expected, low, high),
        )  # fmt: skip

    def _spread_limits(self, size: Floats, nu: Floats, rate: Floats) -> tuple[Floats, Floats]:
        """Limits of ranges or standard deviations, in estimated sigmas, (k,) each."""
        work = range_bounds if self._ranges else std_bounds
        rows = zip(size.tolist(), nu.tolist(), rate.tolist(), strict=True)
        low, high = np.array([work(int(n), v, r) for n, v, r in rows]).reshape(-1, 2).T
        return low, high

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"state": pack(self._state), "rules": self._rules.save()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._state = unpack(saved["state"])
        self._rules.load(saved["rules"])


@lru_cache(maxsize=4096)
def std_bounds(n: int, nu: float, rate: float) -> tuple[float, float]:
    """Of a new standard deviation of n values, in sigmas estimated with `nu` degrees of freedom: F quantiles."""
    low = f_quantile(0.5 * rate, n - 1, nu)
    return math.sqrt(low), math.sqrt(f_quantile(1 - 0.5 * rate, n - 1, nu))


@lru_cache(maxsize=4096)
def range_bounds(n: int, nu: float, rate: float) -> tuple[float, float]:
    """Limits of a new range of n values, in sigmas estimated without bias with `nu` degrees of freedom."""
    spread, weight = sigma_error(Error(0.0, nu, 1 / c4(nu + 1)))

    def below(w: float) -> float:
        return float(np.sum(weight * range_cdf(w * spread, n)))

    return _root(below, 0.5 * rate), _root(below, 1 - 0.5 * rate)


def _root(rising: Any, target: float) -> float:
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def _freedom(variance: float) -> float:
    """Degrees of freedom of the chi that varies as much about its mean (Patnaik, Biometrika 37 (1950))."""
    low, high = 1.0, 1e6
    for _ in range(60):
        middle = math.sqrt(low * high)
        mean = c4(middle + 1)
        if 1 / (mean * mean) - 1 > variance:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def textbook_sigma(items: Floats, *, ranges: bool) -> float:
    """Sigma as books have it: mean range / d2; mean std / c4, or pooled if sizes differ (Montgomery 6.4)."""
    size = items[:, 2]
    if ranges:
        return float(np.mean(items[:, 1])) / d2(int(size[0]))
    if np.all(size == size[0]):
        return float(np.mean(items[:, 1])) / c4(float(size[0]))
    return math.sqrt(float(np.sum((size - 1) * items[:, 1] ** 2) / np.sum(size - 1)))


def textbook_means(center: float, sigma: float, n: float, width: float = 3.0) -> Lines:
    """Lines of means: centre -/+ width * sigma / sqrt(n)."""
    half = width * sigma / math.sqrt(n)
    return Lines(center - half, center, center + half)


def textbook_spreads(sigma: float, n: int, *, ranges: bool, width: float = 3.0) -> Lines:
    """Lines of ranges (d2 and d3) or standard deviations (c4), centre -/+ width standard deviations, not below 0.

    >>> print("{:.5f} {:.5f} {:.5f}".format(*textbook_spreads(0.0092400 / c4(5), 5, ranges=False)))
    0.00000 0.00924 0.01930
    """
    center, error = (d2(n), d3(n)) if ranges else (c4(n), math.sqrt(1 - c4(n) ** 2))
    return Lines(max(center - width * error, 0.0) * sigma, center * sigma, (center + width * error) * sigma)
