"""Short-run chart: deviation from the nominal of the recipe that runs, so that many short runs fill one chart.

z = (x - nominal) / spread, against centre +/- width * sigma of z, and run rules. With `spreads` it is a Z chart;
without (all 1) a deviation-from-nominal chart, which asks that recipes spread alike. Source: Montgomery, Introduction
to Statistical Quality Control, 10.1; ISO 7870-8. An item is (value, recipe), the recipe by its `recipe_code`.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Design, Estimate
>>> table = {"A": 10.0, "B": 25.0}
>>> bank = ShortRunBank(ChartConfig(kind="short-run", signals=("mill/d",), recipe="mill/program", nominals=table))
>>> bank.grow(1)
>>> bank.freeze(0, Estimate(0.0, 0.5, 100), Design(3.0, 370.0))
Lines(lcl=-1.5, center=0.0, ucl=1.5)
>>> judge = lambda row: float(bank.update(np.array([0]), np.array([row])).statistic[0])
>>> [judge(row) for row in ([10.25, recipe_code("A")], [24.5, recipe_code("B")])]
[0.25, -0.5]
"""

from typing import Any
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics.baseline import Screening, screen
from analytics.charts.base import Floats, Judgement, Lines
from analytics.charts.individuals import IndividualsBank
from analytics.config import ChartConfig
from analytics.distributions import f_quantile
from analytics.limits import Design, Estimate, spread_estimate

DIFFER_LEVEL = 0.003  # chance that recipes of one mean, or one spread, are refused


def recipe_code(name: str) -> float:
    """A recipe's name as a number that a float holds exactly (CRC-32)."""
    return float(crc32(name.encode()))


class ShortRunBank:
    """See `analytics.charts.base.ChartBank`."""

    columns: tuple[str, ...] = ("value", "recipe")
    drops_outliers: bool = True

    def __init__(self, config: ChartConfig) -> None:
        self._chart = IndividualsBank(config)
        self.rule_names = self._chart.rule_names
        self._recipes = sorted(config.nominals, key=recipe_code)
        self._code = np.array([recipe_code(name) for name in self._recipes])
        self._nominal = np.array([config.nominals[name] for name in self._recipes])
        self._spread = np.array([config.spreads.get(name, 1.0) for name in self._recipes])

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._chart.grow(channels)

    def usable(self, items: Floats) -> NDArray[np.bool_]:
        """Those of recipes that the table knows."""
        return np.isin(items[:, 1], self._code)

    def _z(self, items: Floats) -> Floats:
        recipe = np.searchsorted(self._code, items[:, 1])
        return np.asarray((items[:, 0] - self._nominal[recipe]) / self._spread[recipe])

    def screen(self, items: Floats) -> Screening:
        """Deviations are screened, also for recipes that are off their nominals (F test between recipes)."""
        z = self._z(items)
        found = screen(z)
        recipes, row, count = np.unique(
            np.searchsorted(self._code, items[:, 1]), return_inverse=True, return_counts=True
        )
        if found.cause or len(recipes) < 2:
            return found
        kept = found.kept
        mean = np.array(
            [np.mean(z[(row == i) & kept]) if np.any((row == i) & kept) else 0.0 for i in range(len(recipes))]
        )
        inside = float(np.sum((z - mean[row])[kept] ** 2)) / max(len(z[kept]) - len(recipes), 1)
        between = float(np.sum(count * (mean - np.mean(z[kept])) ** 2)) / (len(recipes) - 1)
        bound = f_quantile(1 - DIFFER_LEVEL, len(recipes) - 1, max(len(z[kept]) - len(recipes), 1))
        if between > bound * inside:
            far = int(np.argmax(np.abs(mean)))
            words = (
                f"recipes are not all at their nominals: F {between / max(inside, 1e-300):.1f}, at most {bound:.1f} is "
                f"chance; {self._recipes[recipes[far]]!r} is off by {mean[far]:.3g} on average. Correct `nominals`"
            )
            everything = np.ones(len(z), bool)
            return Screening(everything, "recipes", between / max(inside, 1e-300), bound, words)
        return found

    def estimate(self, items: Floats) -> Estimate:
        """Mean and standard deviation of the deviations."""
        return spread_estimate(self._z(items))

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Limits for what a baseline says."""
        return self._chart.design(msgspec.structs.replace(estimate, model=()), arl0)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and forget its runs."""
        return self._chart.freeze(channel, estimate, design)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        return self._chart.update(channel, self._z(items))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return self._chart.save()

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._chart.load(saved)
