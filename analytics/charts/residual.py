"""Residual chart for values that follow each other: an AR(p) model of the baseline, and a chart on what it misses.

x_t = c + sum phi_i x_(t-i) + e_t by least squares; p is the order up to `lags` with the least BIC (Schwarz 1978), at
least 1; e_t stands against 0 +/- width * sigma_e. Source: Alwan & Roberts, Journal of Business & Economic Statistics 6
(1988); ISO 7870-9. The width is that of a regression's prediction, with twice the error of its p + 1 coefficients that
large samples would have: their tails are long. Coefficients are corrected for the bias of short series,
(1 + 3 sum phi) / n (Marriott & Pope 1954). A level shift shows in full in its first residual and then shrinks to
(1 - sum phi) of itself: large sudden changes are found, slow ones hardly.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Design
>>> bank = ResidualBank(ChartConfig(kind="residual", signals=("oven/temperature",)))
>>> bank.grow(1)
>>> x = [0.0]
>>> for noise in np.random.default_rng(1).normal(size=400).tolist():
...     x.append(0.9 * x[-1] + noise)
>>> learned = bank.estimate(np.array(x))
>>> print(f"order {int(learned.model[0])}, phi {learned.model[2]:.2f}, sigma {learned.sigma:.2f}")
order 1, phi 0.83, sigma 0.90
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import Screening, screen
from analytics.charts.base import Floats, Judgement, Lines, OfValues
from analytics.config import ChartConfig
from analytics.limits import Design, Error, Estimate, design_shewhart
from analytics.ruleset import RuleMemory
from analytics.state import grow, pack, unpack

_CENTER, _HALF, _CONSTANT, _SEEN, _PHI = 0, 1, 2, 3, 4  # columns of the state; phi and the last values follow
LARGEST_SUM = 0.99  # of the coefficients, after the correction for bias
STATIONARY = 0.995  # largest root of the model: beyond, it is a walk that no level holds


class ResidualBank(OfValues):
    """See `analytics.charts.base.ChartBank`. `Estimate.model` is (order, c, phi_1 ... phi_lags, last values)."""

    drops_outliers: bool = False

    def __init__(self, config: ChartConfig) -> None:
        self._rules = RuleMemory(config.rule_set)
        self.rule_names: tuple[str, ...] = config.rule_set.names
        self._arl0 = config.design_arl0
        self._lags = config.lags
        self._state = np.zeros((0, _PHI + 2 * config.lags))

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._state = grow(self._state, channels)
        self._rules.grow(channels)

    def screen(self, items: Floats) -> Screening:
        """The residuals are screened: values themselves may resemble each other."""
        if np.ptp(items) <= 1e-12 * np.max(np.abs(items)):
            return screen(items)
        constant, phi = fit_ar(items, self._lags)
        everything = np.ones(len(items), bool)
        root = largest_root(phi)
        if root >= STATIONARY:
            words = (
                f"the values wander off: largest root of the AR({len(phi)}) model is {root:.3f}, at most {STATIONARY} "
                "holds a level. Let the machine settle, take a longer baseline, or mend the drift"
            )
            return Screening(everything, "wandering", root, STATIONARY, words)
        left = residuals(items, constant, phi)
        found = screen(left)
        kept = np.concatenate([np.ones(len(phi), bool), found.kept])
        return Screening(kept, found.cause, found.figure, found.bound, found.words)

    def estimate(self, items: Floats) -> Estimate:
        """Fit the model; outliers stay in, because the values behind them are predicted from them."""
        constant, phi = fit_ar(items, self._lags)
        left = residuals(items, constant, phi)
        order, n = len(phi), len(left)
        sigma = math.sqrt(float(np.sum(left * left)) / (n - order - 1))
        pad = [0.0] * (self._lags - order)
        last = items[::-1][: self._lags].tolist()
        model = (float(order), constant, *phi.tolist(), *pad, *last)
        return Estimate(0.0, sigma, n, model=model)

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Limits for what a baseline says."""
        order, n = int(estimate.model[0]) if estimate.model else 1, estimate.n
        if n == 0:
            return design_shewhart(Error(), self._rules.chosen, arl0 or self._arl0)
        error = Error(math.sqrt(2 * (order + 1) / n), n - order - 1)
        return design_shewhart(error, self._rules.chosen, arl0 or self._arl0)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's model and limits; the baseline's last values predict the next one."""
        half = design.width * estimate.sigma
        order, constant, *rest = estimate.model or (1.0, 0.0, *[0.0] * (2 * self._lags))
        self._state[channel] = (0.0, half, constant, order, *rest)
        self._rules.forget(channel)
        return Lines(-half, 0.0, half)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        state, lags = self._state[channel], self._lags
        phi, last = state[:, _PHI : _PHI + lags], state[:, _PHI + lags :]
        left = items - state[:, _CONSTANT]
        for i in range(lags):  # one after the other: the same sum whatever the number of channels
            left = left - phi[:, i] * last[:, i]
        self._state[channel, _PHI + lags + 1 :] = last[:, :-1]
        self._state[channel, _PHI + lags] = items
        center, half = state[:, _CENTER], state[:, _HALF]
        return Judgement(left, -half, half, self._rules.step(channel, left, center, half))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"state": pack(self._state), "rules": self._rules.save()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._state = unpack(saved["state"])
        self._rules.load(saved["rules"])


def brought_up(estimate: Estimate, newest: Floats, lags: int) -> Estimate:
    """An old estimate whose next value shall be predicted from the newest ones, (n,), oldest first."""
    if not estimate.model:
        return estimate
    return msgspec.structs.replace(estimate, model=(*estimate.model[: 2 + lags], *newest[::-1][:lags].tolist()))


def fit_ar(values: Floats, most: int) -> tuple[float, Floats]:
    """Constant and coefficients of the AR model with the least BIC, of order 1 to `most`, corrected for their bias."""
    best, chosen = math.inf, (0.0, np.zeros(1))
    n = len(values) - most
    mean = float(np.mean(values))
    x = values - mean
    for order in range(1, max(1, min(most, n // 4)) + 1):
        constant, phi = _least_squares(x, order)
        left = residuals(x[most - order :], constant, phi)
        score = n * math.log(max(float(np.mean(left * left)), 1e-300)) + order * math.log(n)
        if score < best:
            best, chosen = score, (constant, phi)
    _, phi = chosen
    total = float(np.sum(phi))
    if 0.05 < total < 1:
        phi = phi * (min(total + (1 + 3 * total) / len(values), max(total, LARGEST_SUM)) / total)
    return mean * (1 - float(np.sum(phi))), phi


def residuals(values: Floats, constant: float, phi: Floats) -> Floats:
    """What the model misses of each value but the first p, (n - p,)."""
    order = len(phi)
    left = values[order:] - constant
    for i in range(order):
        left = left - phi[i] * values[order - 1 - i : len(values) - 1 - i]
    return np.asarray(left)


def largest_root(phi: Floats) -> float:
    """Largest absolute root of the model's companion matrix: below 1 if the series is stationary."""
    return float(np.max(np.abs(np.roots(np.concatenate([[1.0], -phi])))))


def _least_squares(x: Floats, order: int) -> tuple[float, Floats]:
    rows = [np.ones(len(x) - order), *(x[order - 1 - i : len(x) - 1 - i] for i in range(order))]
    design, y = np.array(rows), x[order:]
    # normal equations, summed in one order and solved by hand: the same bits on every machine
    a = np.array([[np.sum(r * s) for s in design] for r in design])
    b = np.array([np.sum(r * y) for r in design])
    for i in range(order + 1):
        pivot = a[i, i] if abs(a[i, i]) > 1e-300 else 1e-300
        for j in range(i + 1, order + 1):
            factor = a[j, i] / pivot
            a[j] -= factor * a[i]
            b[j] -= factor * b[i]
    found = np.zeros(order + 1)
    for i in range(order, -1, -1):
        pivot = a[i, i] if abs(a[i, i]) > 1e-300 else 1e-300
        found[i] = (b[i] - np.sum(a[i, i + 1 :] * found[i + 1 :])) / pivot
    return float(found[0]), found[1:]
