"""What every multivariate chart offers: statistics of one vector a time, and what each channel contributes.

Vectors are standardised before (mean 0, standard deviation 1 in the baseline). A chart works one vector at a time:
matrix products of several rows round differently from those of one, and a judgement may not depend on how rows are cut.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Model = dict[str, Floats]


class VectorKind(Protocol):
    """One kind of multivariate chart. It has no state of its own: model and memory are arrays that are passed in.

    Attributes:
        statistics: their names, as findings call the rule.
    """

    statistics: tuple[str, ...]

    def least(self, channels: int) -> int:
        """Vectors that a baseline needs at least."""
        ...

    def dimension(self, channels: int) -> int:
        """Dimension of the covariance that the statistics weigh with."""
        ...

    def fit(self, z: Floats) -> Model:
        """The model of a baseline, (n, p)."""
        ...

    def memory(self, channels: int) -> Floats:
        """What a fresh chart remembers."""
        ...

    def step(self, model: Model, memory: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Statistics (NaN while the memory fills) of the next vector (p,), and the new memory."""
        ...

    def contributions(self, model: Model, memory: Floats, z: Floats, which: int) -> Floats:
        """What each channel adds to statistic `which`, (p,), not negative; `memory` is that behind the vector."""
        ...


def covariance(z: Floats) -> Floats:
    """Sample covariance about the mean, (p, p)."""
    d = z - z.mean(axis=0)
    return np.asarray(d.T @ d / (len(z) - 1))


def inverse(s: Floats) -> Floats:
    """Inverse of a covariance, also if channels repeat each other: what is below 1e-9 of the largest does not count."""
    return np.asarray(np.linalg.pinv(s, rcond=1e-9, hermitian=True))


def dropped_terms(precision: Floats, z: Floats) -> Floats:
    """How much z' precision z falls if a channel is left out, for each channel: its conditional term.

    Source: Mason, Young & Tracy, Journal of Quality Technology 27 (1995).
    """
    return np.asarray((precision @ z) ** 2 / np.maximum(np.diag(precision), 1e-300))
