"""EWMA chart: z = lambda * x + (1 - lambda) * z against centre +/- L * sigma * sqrt(lambda / (2 - lambda)).

Source: Roberts, Technometrics 1 (1959); Lucas & Saccucci, Technometrics 32 (1990); ISO 7870-6. It starts at the centre
and its limits are the steady ones from the first value on: the ARL tables and our design hold for exactly that.

>>> import numpy as np
>>> from analytics.config import ChartConfig
>>> from analytics.limits import Estimate
>>> bank = EwmaBank(ChartConfig(kind="ewma", signals=("cnc-07/diameter",)))
>>> bank.grow(1)
>>> learned = Estimate(10.0, 0.5, 100)
>>> lines = bank.freeze(0, learned, bank.design(learned))
>>> print(f"{lines.lcl:.3f} {lines.ucl:.3f}")
9.496 10.504
>>> print(f"{bank.update(np.array([0]), np.array([11.0])).statistic[0]:.3f}")
10.200
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.charts.base import Floats, Judgement, Lines, OfValues
from analytics.config import ChartConfig
from analytics.limits import Design, Estimate, design_ewma
from analytics.state import grow, pack, unpack


class EwmaBank(OfValues):
    """See `analytics.charts.base.ChartBank`."""

    def __init__(self, config: ChartConfig) -> None:
        self.rule_names: tuple[str, ...] = ("ewma",)
        self._lambda = config.lambda_
        self._arl0 = config.design_arl0
        self._state = np.zeros((0, 3))  # centre, half width, z

    def grow(self, channels: int) -> None:
        """Make room for `channels` channels."""
        self._state = grow(self._state, channels)

    def design(self, estimate: Estimate, arl0: float | None = None) -> Design:
        """Limits for what a baseline says."""
        return design_ewma(estimate.n, self._lambda, arl0 or self._arl0, phi=estimate.phi)

    def freeze(self, channel: int, estimate: Estimate, design: Design) -> Lines:
        """Set a channel's limits and start at the centre."""
        half = design.width * estimate.sigma
        self._state[channel] = estimate.center, half, estimate.center
        return Lines(estimate.center - half, estimate.center, estimate.center + half)

    def update(self, channel: NDArray[np.intp], items: Floats) -> Judgement:
        """Judge one value for each of k channels."""
        state = self._state[channel]
        center, half = state[:, 0], state[:, 1]
        z = self._lambda * items + (1.0 - self._lambda) * state[:, 2]
        self._state[channel, 2] = z
        lcl, ucl = center - half, center + half
        return Judgement(z, lcl, ucl, ((z > ucl) | (z < lcl)).astype(np.uint16))

    def save(self) -> dict[str, Any]:
        """State, exactly."""
        return {"state": pack(self._state)}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._state = unpack(saved["state"])
