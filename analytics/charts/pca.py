"""PCA chart: T2 in the plane of the largest principal components, and SPE, the squared distance from that plane.

Source: Jackson & Mudholkar, Technometrics 21 (1979); MacGregor & Kourti, Control Engineering Practice 3 (1995). The
plane holds the components that explain 90 % of the variance.

>>> import numpy as np
>>> z = np.array([[-1.0, -1.1], [0.0, 0.1], [1.0, 1.0], [2.0, 2.1], [-2.0, -2.1]])
>>> chart = PcaChart()
>>> statistics, _ = chart.step(chart.fit(z), chart.memory(2), np.array([1.0, -1.0]))
>>> print(f"{statistics[0]:.3f} {statistics[1]:.3f}")
0.000 1.999
"""

import numpy as np

from analytics.charts.vector import Floats, Model, covariance

EXPLAINED = 0.9


class PcaChart:
    """See `analytics.charts.vector.VectorKind`."""

    statistics: tuple[str, ...] = ("t2", "spe")

    def least(self, channels: int) -> int:
        """Vectors that a baseline needs at least."""
        return 2 * channels + 2

    def dimension(self, channels: int) -> int:  # noqa: ARG002  the components kept are few
        """Dimension of the covariance that the statistics weigh with; as good as none."""
        return 0

    def fit(self, z: Floats) -> Model:
        """Mean, loadings (p, k) and variances (k,) of the components kept."""
        variance, vectors = np.linalg.eigh(covariance(z))
        variance, vectors = variance[::-1], vectors[:, ::-1]
        share = np.cumsum(variance) / np.sum(variance)
        k = min(int(np.searchsorted(share, EXPLAINED)) + 1, max(len(variance) - 1, 1))
        return {"mean": z.mean(axis=0), "loadings": vectors[:, :k].copy(), "variance": np.maximum(variance[:k], 1e-12)}

    def memory(self, channels: int) -> Floats:  # noqa: ARG002  none is needed
        """Nothing is remembered."""
        return np.zeros(0)

    def step(self, model: Model, memory: Floats, z: Floats) -> tuple[Floats, Floats]:
        """T2 and SPE of a vector."""
        d = z - model["mean"]
        score = d @ model["loadings"]
        rest = d - model["loadings"] @ score
        return np.array([np.sum(score * score / model["variance"]), rest @ rest]), memory

    def contributions(self, model: Model, memory: Floats, z: Floats, which: int) -> Floats:  # noqa: ARG002  no memory
        """T2: each channel's part of the sum, where it is positive. SPE: the squared residual."""
        d = z - model["mean"]
        score = d @ model["loadings"]
        if which == 1:
            return np.asarray((d - model["loadings"] @ score) ** 2)
        return np.asarray(np.maximum(d * (model["loadings"] @ (score / model["variance"])), 0.0))
