"""Individuals (Shewhart) chart: each value against centre +/- width * sigma, and run rules.

Source: Montgomery, Introduction to Statistical Quality Control, 6.4; ISO 7870-2. The width is 3 in textbooks; here it
is designed for the rate of false alarms, see `analytics.limits`. Zones are thirds of the width.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Estimate
>>> bank = IndividualsBank(ChartConfig(signals=("cnc-07/diameter",)))
>>> bank.grow(1)
>>> learned = Estimate(10.0, 0.5, 100)
>>> lines = bank.freeze(0, learned, bank.design(learned))
>>> print(f"{lines.lcl:.3f} {lines.ucl:.3f}")
8.454 11.546
>>> int(bank.update(np.array([0]), np.array([11.6])).violation[0])
1
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.charts.base import Floats, Judgement, Lines, OfValues
from analytics.config import ChartConfig
from analytics.limits import Design, Estimate, design_individuals
from analytics.ruleset import RuleMemory
from analytics.state import grow, pack, unpack


class IndividualsBank(OfValues):
    """See `analytics.charts.base.ChartBank`."""

    def __init__(self, config: ChartConfig) -> None:
        self._rules = RuleMemory(config.rule_set)
        self.rule_names: tuple[str, ...] = config.rule_set.names
        self._arl0 = config.design_arl0
        self._limits = np.zeros((0, 2))  # centre, width in the value's unit

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._limits = grow(self._limits, channels)
        self._rules.grow(channels)

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Limits for what a baseline says."""
        return design_individuals(estimate.n, self._rules.chosen, arl0 or self._arl0, phi=estimate.phi)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and forget its runs."""
        half = design.width * estimate.sigma
        self._limits[channel] = estimate.center, half
        self._rules.forget(channel)
        return Lines(estimate.center - half, estimate.center, estimate.center + half)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        limits = self._limits[channel]
        center, half = limits[:, 0], limits[:, 1]
        return Judgement(items, center - half, center + half, self._rules.step(channel, items, center, half))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"limits": pack(self._limits), "rules": self._rules.save()}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._limits = unpack(saved["limits"])
        self._rules.load(saved["rules"])
