"""MEWMA chart: Hotelling's T2 of an exponentially weighted mean, which remembers small shifts of all channels.

z_t = lambda x_t + (1 - lambda) z_(t-1), T2_t = (2 - lambda) / lambda * z_t' S^-1 z_t (steady-state covariance).
Source: Lowry, Woodall, Champ & Rigdon, Technometrics 34 (1992); ISO 7870-7.

>>> import numpy as np
>>> chart = MewmaChart(0.1)
>>> model = {"mean": np.zeros(2), "precision": np.eye(2)}
>>> memory = chart.memory(2)
>>> for _ in range(10):
...     statistics, memory = chart.step(model, memory, np.array([1.0, 0.0]))
>>> print(f"{statistics[0]:.3f}")
8.060
"""

import numpy as np

from analytics.charts.vector import Floats, Model, covariance, dropped_terms, inverse


class MewmaChart:
    """See `analytics.charts.vector.VectorKind`."""

    statistics: tuple[str, ...] = ("mewma",)

    def __init__(self, lambda_: float) -> None:
        self._lambda = lambda_
        self._scale = (2 - lambda_) / lambda_

    def least(self, channels: int) -> int:
        """Vectors that a baseline needs at least."""
        return 2 * channels + 2

    def dimension(self, channels: int) -> int:
        """Dimension of the covariance that the statistics weigh with."""
        return channels

    def fit(self, z: Floats) -> Model:
        """Mean and inverse covariance of single vectors."""
        return {"mean": z.mean(axis=0), "precision": inverse(covariance(z))}

    def memory(self, channels: int) -> Floats:
        """The moving average starts at the centre."""
        return np.zeros(channels)

    def step(self, model: Model, memory: Floats, z: Floats) -> tuple[Floats, Floats]:
        """T2 of the moving average."""
        mean = self._lambda * (z - model["mean"]) + (1 - self._lambda) * memory
        return np.array([self._scale * (mean @ (model["precision"] @ mean))]), mean

    def contributions(self, model: Model, memory: Floats, z: Floats, which: int) -> Floats:  # noqa: ARG002  one statistic
        """How much the statistic falls if a channel is left out."""
        return self._scale * dropped_terms(model["precision"], memory)
