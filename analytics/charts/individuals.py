"""Individuals (Shewhart) chart: each value against centre +/- width * sigma, and Western Electric run rules.

Source: Montgomery, Introduction to Statistical Quality Control, 6.4; ISO 7870-2. The width is 3 in textbooks; here it
is designed for the rate of false alarms, see `analytics.limits`. Zones are thirds of the width.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Estimate
>>> bank = IndividualsBank(ChartConfig(signals=("cnc-07/diameter",)))
>>> bank.grow(1)
>>> lcl, ucl = bank.freeze(0, Estimate(10.0, 0.5, 100), bank.design(100))
>>> print(f"{lcl:.3f} {ucl:.3f}")
8.454 11.546
>>> int(bank.update(np.array([0]), np.array([11.6])).violation[0])
1
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics import rules
from analytics.charts.base import Floats, Judgement
from analytics.config import ChartConfig
from analytics.limits import Design, Estimate, design_individuals
from analytics.state import grow, pack, unpack


class IndividualsBank:
    """See `analytics.charts.base.ChartBank`."""

    def __init__(self, config: ChartConfig) -> None:
        self.rule_names: tuple[str, ...] = rules.RULES
        self._mask = rules.rule_mask(config.rule_names)
        self._arl0 = config.design_arl0
        self._limits = np.zeros((0, 2))  # centre, width in the value's unit
        self._runs = rules.new_state(0)

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._limits = grow(self._limits, channels)
        self._runs = grow(self._runs, channels)

    def design(self, n: int) -> Design:
        """Limits for a baseline of n values."""
        return design_individuals(n, self._mask, self._arl0)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> tuple[float, float]:
        """Set a channel's limits and forget its runs."""
        half = design.width * estimate.sigma
        self._limits[channel] = estimate.center, half
        self._runs[channel] = 0
        return estimate.center - half, estimate.center + half

    def update(self, channel: NDArray[np.intp], value: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        limits = self._limits[channel]
        center, half = limits[:, 0], limits[:, 1]
        lcl, ucl = center - half, center + half
        if self._mask == 1:
            return Judgement(value, lcl, ucl, ((value > ucl) | (value < lcl)).astype(np.uint8))
        runs, fired = rules.step(self._runs[channel], rules.zones(value, center, half / 3))
        self._runs[channel] = runs
        return Judgement(value, lcl, ucl, fired & np.uint8(self._mask))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"limits": pack(self._limits), "runs": pack(self._runs)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._limits, self._runs = unpack(saved["limits"]), unpack(saved["runs"])
