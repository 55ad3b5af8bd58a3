"""Charts of counts: p and np (defective items), c and u (defects), and Laney's p' and u' for large samples.

An item is (count, size): `count` defective ones of `size` inspected, or `count` defects in an area of `size`. p and u
plot count / size, np and c the count. Textbook limits are centre +/- 3 sigma (Montgomery, Introduction to Statistical
Quality Control, 7.3 and 7.4; ISO 7870-2): see `textbook_counts`. Limits in force are exact, see `analytics.counts`.
Laney's (Quality Engineering 14 (2002)) widen by sigma_z, the spread of the standardised counts: with samples of
thousands, days differ by more than chance, and a p chart alarms all day.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Estimate
>>> bank = CountBank(ChartConfig(kind="p", signals=("line/defective",), n=50))
>>> bank.grow(1)
>>> learned = bank.estimate(np.array([[12.0, 50], [15, 50], [8, 50], [10, 50]] * 10))
>>> lines = bank.freeze(0, learned, bank.design(learned))
>>> print(f"{lines.lcl:.2f} {lines.center:.3f} {lines.ucl:.2f}")
0.06 0.225 0.42
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import Screening, screen
from analytics.charts.base import Floats, Judgement, Lines
from analytics.config import ChartConfig
from analytics.counts import LARGEST_SIZE, count_limits
from analytics.distributions import chi2_quantile
from analytics.limits import SHEWHART_ARL0, Design, Estimate, design_individuals
from analytics.state import grow, pack, unpack

DISPERSION_LEVEL = 0.003  # chance that counts of one rate are refused as over-dispersed
_FOUND, _OF, _RATE, _HALF = range(4)  # columns of the state


class CountBank:
    """See `analytics.charts.base.ChartBank`. `Estimate.model` is (defects, size) of the whole baseline."""

    columns: tuple[str, ...] = ("count", "size")
    drops_outliers: bool = True

    def __init__(self, config: ChartConfig) -> None:
        self._binomial = config.kind in ("p", "np", "laney-p")
        self._ratio = config.kind not in ("np", "c")
        self._laney = config.kind.startswith("laney")
        self._kind = config.kind
        self.rule_names: tuple[str, ...] = ("1",)
        self._arl0 = config.design_arl0
        self._state = np.zeros((0, 4))

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._state = grow(self._state, channels)

    def usable(self, items: Floats) -> NDArray[np.bool_]:
        """Whole counts, not negative, of a positive size that is not below the count of defective items."""
        count, size = items[:, 0], items[:, 1]
        good = (count >= 0) & (count == np.floor(count)) & (size > 0) & (size <= LARGEST_SIZE)
        return np.asarray(good & ((count <= size) & (size == np.floor(size)) if self._binomial else True))

    def screen(self, items: Floats) -> Screening:
        """Standardised counts are screened; p, np, c and u also for counts that differ by more than chance."""
        everything = np.ones(len(items), bool)
        if not np.any(items[:, 0]) or (self._binomial and np.all(items[:, 0] == items[:, 1])):
            words = f"all {len(items)} samples have {'no' if not np.any(items[:, 0]) else 'only'} defects"
            return Screening(
                everything, "constant", 0.0, 0.0, f"{words}: there is no rate to hold. Take larger samples"
            )
        found = screen(standardised(items, binomial=self._binomial))
        if found.cause == "constant":  # the same count in every sample: calmer than chance, but a rate
            return Screening(everything, "", 0.0, 0.0, "")
        if found.cause or self._laney:
            return msgspec.structs.replace(found, phi=0.0)
        z = standardised(items[found.kept], binomial=self._binomial)
        figure, bound = float(np.sum(z * z)), chi2_quantile(1 - DISPERSION_LEVEL, len(z) - 1)
        if figure > bound:
            ratio, most = figure / (len(z) - 1), bound / (len(z) - 1)
            laney = "laney-p" if self._binomial else "laney-u"
            words = (
                f"counts differ by more than chance: their variance is {ratio:.2f} times that of one rate, at most "
                f'{most:.2f} is chance. Find what differs between samples, or use `kind = "{laney}"`'
            )
            return Screening(everything, "overdispersed", ratio, most, words)
        return msgspec.structs.replace(found, phi=0.0)

    def estimate(self, items: Floats) -> Estimate:
        """The rate of the baseline; sigma is that of one plotted point of average size."""
        found, of = float(np.sum(items[:, 0])), float(np.sum(items[:, 1]))
        size = of / len(items)
        sigma = float(_sigma(found / of, np.array([size]), binomial=self._binomial)[0])
        if self._laney:
            sigma *= float(np.std(standardised(items, binomial=self._binomial), ddof=1))
        scale = 1.0 if self._ratio else size
        return Estimate(found / of * scale, sigma * scale, len(items), model=(found, of))

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Exact limits have no width in sigmas; the rate is at most the designed one."""
        target = arl0 or self._arl0 or SHEWHART_ARL0
        if self._laney:
            return design_individuals(estimate.n, arl0=target)
        return Design(0.0, target)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits. The lines are those of a sample of average size."""
        found, of = estimate.model or (estimate.center, 1.0)
        size = of / max(estimate.n, 1) if estimate.model else 1.0
        plain = float(_sigma(found / of, np.array([size]), binomial=self._binomial)[0]) * (1.0 if self._ratio else size)
        wider = estimate.sigma / plain if plain > 0 else 1.0
        self._state[channel] = found, of, 1 / design.arl0, design.width * wider
        low, high = self._limits(self._state[[channel]], np.array([float(round(size)) if self._binomial else size]))
        return Lines(float(low[0]), estimate.center, float(high[0]))

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one sample for each of k channels."""
        count, size = items[:, 0], items[:, 1]
        statistic = count / size if self._ratio else count
        low, high = self._limits(self._state[channel], size)
        return Judgement(statistic, low, high, ((statistic > high) | (statistic < low)).astype(np.uint16))

    def _limits(self, state: Floats, size: Floats) -> tuple[Floats, Floats]:
        """Limits of the statistic for samples of these sizes, (k,) each."""
        unit = size if self._ratio else np.ones(len(size))
        if self._laney:
            rate = state[:, _FOUND] / state[:, _OF]
            half = state[:, _HALF] * _sigma(rate, size, binomial=self._binomial)
            return np.maximum(rate - half, 0.0), np.minimum(rate + half, 1.0) if self._binomial else rate + half
        pairs = [
            count_limits(found, of, s, rate, binomial=self._binomial)
            for (found, of, rate, _), s in zip(state.tolist(), size.tolist(), strict=True)
        ]
        low, high = np.array(pairs, np.float64).reshape(-1, 2).T
        return low / unit, high / unit

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"state": pack(self._state)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._state = unpack(saved["state"])


def standardised(items: Floats, *, binomial: bool) -> Floats:
    """(count / size - rate) / sigma of each sample, with the rate of them all."""
    count, size = items[:, 0], items[:, 1]
    rate = float(np.sum(count)) / float(np.sum(size))
    return np.asarray((count / size - rate) / np.maximum(_sigma(rate, size, binomial=binomial), 1e-300))


def laney_sigma_z(items: Floats, *, binomial: bool) -> float:
    """Laney's sigma_z as published: mean moving range of the standardised counts / d2(2)."""
    z = standardised(items, binomial=binomial)
    return float(np.mean(np.abs(np.diff(z)))) * math.sqrt(math.pi) / 2


def textbook_counts(items: Floats, kind: str, size: float, width: float = 3.0) -> Lines:
    """Textbook lines of a sample of `size`, from a baseline: centre -/+ width * sigma, not below 0.

    >>> lines = textbook_counts(np.array([[12.0, 50], [15, 50], [8, 50], [10, 50]]), "np", 50)
    >>> print(f"{lines.lcl:.3f} {lines.center} {lines.ucl:.3f}")
    2.392 11.25 20.108
    """
    binomial = kind in ("p", "np", "laney-p")
    rate = float(np.sum(items[:, 0])) / float(np.sum(items[:, 1]))
    half = width * float(_sigma(rate, np.array([size]), binomial=binomial)[0])
    if kind.startswith("laney"):
        half *= laney_sigma_z(items, binomial=binomial)
    scale = size if kind in ("np", "c") else 1.0
    return Lines(max(rate - half, 0.0) * scale, rate * scale, (rate + half) * scale)


def _sigma(rate: Any, size: Floats, *, binomial: bool) -> Floats:
    """Standard deviation of count / size at one rate."""
    return np.asarray(np.sqrt(rate * (1 - rate) / size if binomial else rate / size))
