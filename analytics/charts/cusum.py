"""Tabular CUSUM: C+ = max(0, C+ + x - (mu + K)), C- = max(0, C- + (mu - K) - x); alarm when either is above H.

Source: Page, Biometrika 41 (1954); Montgomery, Introduction to Statistical Quality Control, 9.1; ISO 7870-4. K is
half of the shift to find (`shift`, in sigmas); H is designed for the rate of false alarms. With `head_start` both sides
begin at that share of H (fast initial response: Lucas & Crosier, Technometrics 24 (1982)). Plotted is the
larger side, C- as a negative number. A side stops at five times H, so that the chart comes back once the shift is gone.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Design, Estimate
>>> bank = CusumBank(ChartConfig(kind="cusum", signals=("cnc-07/diameter",)))
>>> bank.grow(1)
>>> bank.freeze(0, Estimate(10.0, 1.0, 100), Design(5.0, 465.0))
Lines(lcl=-5.0, center=0.0, ucl=5.0)
>>> for x in (12.29, 11.50, 10.60, 11.08):
...     found = bank.update(np.array([0]), np.array([x]))
>>> print(f"{found.statistic[0]:.2f}")
3.47
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.charts.base import Floats, Judgement, Lines, OfValues
from analytics.config import ChartConfig
from analytics.limits import Design, Estimate, design_cusum
from analytics.state import grow, pack, unpack

MOST = 5.0  # times H


class CusumBank(OfValues):
    """See `analytics.charts.base.ChartBank`."""

    def __init__(self, config: ChartConfig) -> None:
        self.rule_names: tuple[str, ...] = ("cusum",)
        self._reference = 0.5 * config.shift
        self._head_start = config.head_start
        self._arl0 = config.design_arl0
        self._state = np.zeros((0, 5))  # centre, K, H, C+, C-

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._state = grow(self._state, channels)

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Decision interval for what a baseline says."""
        return design_cusum(
            estimate.n, self._reference, arl0 or self._arl0, head_start=self._head_start, phi=estimate.phi
        )

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and start both sides at the head start."""
        h = design.width * estimate.sigma
        start = self._head_start * h
        self._state[channel] = estimate.center, self._reference * estimate.sigma, h, start, start
        return Lines(-h, 0.0, h)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        state = self._state[channel]
        away, k, h = items - state[:, 0], state[:, 1], state[:, 2]
        up = np.clip(state[:, 3] + away - k, 0.0, MOST * h)
        down = np.clip(state[:, 4] - away - k, 0.0, MOST * h)
        self._state[channel, 3], self._state[channel, 4] = up, down
        larger = np.where(down > up, -down, up)
        return Judgement(larger, -h, h, ((up > h) | (down > h)).astype(np.uint16))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"state": pack(self._state)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._state = unpack(saved["state"])
