"""Hotelling's T2 chart: T2 = (x - m)' S^-1 (x - m), how far a vector is from the baseline's centre, channels together.

Source: Ryan, Statistical Methods for Quality Improvement, ch. 9; ISO 7870-7. Theory gives the limits below for
independent normal vectors; limits in force are calibrated on the baseline, see `analytics.calibration`.

>>> import numpy as np
>>> z = np.array([[-1.0, 0.5], [0.0, -1.0], [1.0, 0.5], [0.0, 0.0]])
>>> chart = HotellingChart()
>>> statistics, _ = chart.step(chart.fit(z), chart.memory(2), np.array([1.0, 1.0]))
>>> print(f"{statistics[0]:.3f}")
3.500
>>> print(f"{phase1_limit(25, 8, 0.001):.4f} {phase2_limit(25, 8, 0.001):.4f}")
17.4170 70.0294
"""

import numpy as np

from analytics.charts.vector import Floats, Model, covariance, dropped_terms, inverse
from analytics.distributions import beta_quantile, f_quantile


class HotellingChart:
    """See `analytics.charts.vector.VectorKind`."""

    statistics: tuple[str, ...] = ("t2",)

    def least(self, channels: int) -> int:
        """Vectors that a baseline needs at least."""
        return 2 * channels + 2

    def dimension(self, channels: int) -> int:
        """Dimension of the covariance that the statistics weigh with."""
        return channels

    def fit(self, z: Floats) -> Model:
        """Mean and inverse covariance."""
        return {"mean": z.mean(axis=0), "precision": inverse(covariance(z))}

    def memory(self, channels: int) -> Floats:  # noqa: ARG002  none is needed
        """Nothing is remembered."""
        return np.zeros(0)

    def step(self, model: Model, memory: Floats, z: Floats) -> tuple[Floats, Floats]:
        """T2 of a vector."""
        d = z - model["mean"]
        return np.array([d @ (model["precision"] @ d)]), memory

    def contributions(self, model: Model, memory: Floats, z: Floats, which: int) -> Floats:  # noqa: ARG002  one statistic
        """How much T2 falls if a channel is left out."""
        return dropped_terms(model["precision"], z - model["mean"])


def phase1_limit(m: int, p: int, rate: float) -> float:
    """Limit for the m vectors of p channels that the limits come from: (m-1)^2 / m * beta quantile."""
    return (m - 1) ** 2 / m * beta_quantile(1 - rate, p / 2, (m - p - 1) / 2)


def phase2_limit(m: int, p: int, rate: float) -> float:
    """Limit for a new vector, learned from m vectors: p (m+1)(m-1) / (m (m-p)) * F quantile."""
    return p * (m + 1) * (m - 1) / (m * (m - p)) * f_quantile(1 - rate, p, m - p)


def phase1_limit_of_means(m: int, n: int, p: int, rate: float) -> float:
    """Limit for the m means of n vectors that the limits come from: p (m-1)(n-1) / (mn-m-p+1) * F quantile."""
    nu = m * n - m - p + 1
    return p * (m - 1) * (n - 1) / nu * f_quantile(1 - rate, p, nu)


def phase2_limit_of_means(m: int, n: int, p: int, rate: float) -> float:
    """Limit for the mean of n new vectors: p (m+1)(n-1) / (mn-m-p+1) * F quantile."""
    nu = m * n - m - p + 1
    return p * (m + 1) * (n - 1) / nu * f_quantile(1 - rate, p, nu)
