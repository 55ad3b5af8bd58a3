"""Limits of multivariate charts for a wanted rate of false alarms, estimated on the baseline alone.

Theory's limits take vectors as independent and normal; machine data are neither, and a model fits the vectors that it
was learned from better than new ones. So the baseline is cut into blocks of neighbouring vectors. Each block is judged
by a model of the others, as new vectors will be: what it has not seen, at another time. The statistics of all blocks
together give the limit: their 90 % quantile u, and beyond it an exponential tail (the mean excess over u), as
chi-square-like tails have. That uses a tenth of the vectors instead of the few largest, and reaches rates below 1 / n.
A model of nine tenths is less certain than that of all, so its statistics are larger: they are scaled by the ratio of
the expected T2 of new vectors for the two sizes, n / (n - d - 2) each (F distribution; d is the form's dimension).
A chart with several statistics shares the rate out between them.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analytics.charts.vector import Model, VectorKind

Floats = NDArray[np.float64]

BLOCKS = 10
_WARM = 50  # vectors before a block that fill a chart's memory and are not counted
_TAIL = 0.1


def standardise(x: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel of a baseline (n, p)."""
    sigma = np.std(x, axis=0, ddof=1)
    return x.mean(axis=0), np.where(sigma > 0, sigma, 1.0)


def run(kind: VectorKind, model: Model, z: Floats) -> Floats:
    """Statistics (n, s) of a fresh chart over standardised vectors (n, p)."""
    memory = kind.memory(z.shape[1])
    out = np.empty((len(z), len(kind.statistics)))
    for i, row in enumerate(z):
        out[i], memory = kind.step(model, memory, row)
    return out


def held_out(kind: VectorKind, baseline: Floats) -> Floats:
    """Statistics (n, s) of each vector of a baseline (n, p), by models that have not seen its block."""
    n, d = len(baseline), kind.dimension(baseline.shape[1])
    edges = np.linspace(0, n, blocks_of(n) + 1).astype(int).tolist()
    out = np.empty((n, len(kind.statistics)))
    for start, stop in pairwise(edges):
        others = np.concatenate([baseline[:start], baseline[stop:]])
        mean, sigma = standardise(others)
        model = kind.fit((others - mean) / sigma)
        first = max(0, start - _WARM)
        out[start:stop] = run(kind, model, (baseline[first:stop] - mean) / sigma)[start - first :]
        if len(others) > 2 * d + 2:
            out[start:stop] *= _inflation(n, d) / _inflation(len(others), d)
    return out


def _inflation(n: int, d: int) -> float:
    """Expected T2 of a new vector over d, for a model of n vectors."""
    return n / (n - d - 2)


def tail_quantile(values: Floats, rate: float) -> float:
    """What values exceed at `rate`: empirical down to 10 %, an exponential tail beyond.

    >>> round(tail_quantile(-np.log(1 - np.linspace(0, 1, 10_001)[:-1]), 0.001), 1)
    6.9
    """
    values = values[np.isfinite(values)]
    if rate >= _TAIL:
        return float(np.quantile(values, 1 - rate))
    u = float(np.quantile(values, 1 - _TAIL))
    beyond = values[values > u]
    excess = float(np.mean(beyond - u)) if len(beyond) else 0.0
    return u + excess * math.log(_TAIL / rate)


def limits_at(held: Floats, rate: float) -> Floats:
    """A limit for each statistic (s,), from held-out statistics (n, s): together they alarm at about `rate`."""
    share = rate / held.shape[1]
    return np.array([tail_quantile(held[:, i], share) for i in range(held.shape[1])])


def worst_block(held: Floats, rate: float) -> tuple[int, float]:
    """The tenth whose median lies farthest above the limit that the others give: its number, and median / limit.

    Above 1 the process was not one and the same all through the baseline: at least half of that tenth are alarms.
    """
    tenths = np.array_split(np.arange(len(held)), blocks_of(len(held)))
    found = (0, 0.0)
    for number, rows in enumerate(tenths):
        others = limits_at(np.delete(held, rows, axis=0), rate)
        medians = np.array([np.median(column[np.isfinite(column)]) for column in held[rows].T])
        ratio = float(np.max(medians / np.maximum(others, 1e-300)))
        if ratio > found[1]:
            found = number, ratio
    return found


def blocks_of(n: int) -> int:
    """How many blocks a baseline of n vectors is cut into."""
    return max(2, min(BLOCKS, n // 10))
