"""CVA chart: canonical variate analysis of the last vectors, for processes with dynamics.

The past p_t = [x_t, …, x_(t-l+1)] is turned into canonical variates, ordered by how well they predict the future
[x_(t+1), …, x_(t+l)]: those that do are the state (Ts2), the others the rest (Tr2); both are sums of squares. A third
statistic, `ewma`, is the MEWMA of all variates: it remembers small shifts, while the other two see oscillations.
Source: Larimore, American Control Conference 1983; Russell, Chiang & Braatz, Fault Detection and Diagnosis in
Industrial Systems (2000), ch. 7; for the memory Lowry et al., Technometrics 34 (1992).

>>> import numpy as np
>>> x = np.sin(np.arange(200) / 5)[:, None] + 0.1 * np.cos(np.arange(200) ** 2)[:, None]
>>> chart = CvaChart(lags=2, lambda_=0.2)
>>> model, memory = chart.fit(x), chart.memory(1)
>>> for value in (0.0, 1.0):
...     statistics, memory = chart.step(model, memory, np.array([value]))
>>> print(" ".join(f"{s:.2f}" for s in statistics))
3.17 30.89 12.26
"""

import numpy as np

from analytics.charts.vector import Floats, Model

STATE = 0.4  # canonical correlations above this are state


_RIDGE = 1e-4  # keeps directions that the baseline hardly shows from ruling


class CvaChart:
    """See `analytics.charts.vector.VectorKind`."""

    statistics: tuple[str, ...] = ("ts2", "tr2", "ewma")

    def __init__(self, lags: int, lambda_: float) -> None:
        self._lags = lags
        self._lambda = lambda_

    def least(self, channels: int) -> int:
        """Vectors that a baseline needs at least."""
        return 2 * channels + 2 * self._lags + 2

    def dimension(self, channels: int) -> int:
        """Dimension of the covariance that the statistics weigh with."""
        return channels * self._lags

    def fit(self, z: Floats) -> Model:
        """Canonical variates (p*l, p*l), state first; `states` is how many are state."""
        lags, n = self._lags, len(z)
        d = z - z.mean(axis=0)
        past = np.hstack([d[lags - 1 - i : n - lags - i] for i in range(lags)])
        future = np.hstack([d[lags + i : n - lags + 1 + i] for i in range(lags)])
        root_p, root_f = (_inverse_root(a.T @ a / (len(a) - 1)) for a in (past, future))
        u, s, _ = np.linalg.svd(root_p @ (past.T @ future / (len(past) - 1)) @ root_f)
        states = min(max(int(np.count_nonzero(s > STATE)), 1), max(len(s) - 1, 1))
        variates = np.ascontiguousarray(u.T @ root_p)
        return {"mean": z.mean(axis=0), "variates": variates, "states": np.array([float(states)])}

    def memory(self, channels: int) -> Floats:
        """The last vectors, newest first, NaN until they came; below them the moving average of the past."""
        memory = np.zeros((2 * self._lags, channels))
        memory[: self._lags] = np.nan
        return memory

    def step(self, model: Model, memory: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Ts2 and Tr2 of the last vectors, and the MEWMA of their variates."""
        lags = self._lags
        after = np.vstack([z - model["mean"], memory[: lags - 1], memory[lags:]])
        if not np.isfinite(after[lags - 1]).all():
            return np.full(3, np.nan), after
        after[lags:] = self._lambda * after[:lags] + (1 - self._lambda) * memory[lags:]
        now, slow = model["variates"] @ after[:lags].ravel(), model["variates"] @ after[lags:].ravel()
        states = int(model["states"][0])
        scale = (2 - self._lambda) / self._lambda
        return np.array([now[:states] @ now[:states], now[states:] @ now[states:], scale * (slow @ slow)]), after

    def contributions(self, model: Model, memory: Floats, z: Floats, which: int) -> Floats:  # noqa: ARG002  z is in the memory
        """Each channel's part of the sum over its lags, where it is positive."""
        states = int(model["states"][0])
        rows = model["variates"][(slice(None, states), slice(states, None), slice(None))[which]]
        past = memory[self._lags :] if which == 2 else memory[: self._lags]
        parts = past * (rows.T @ (rows @ past.ravel())).reshape(past.shape)
        return np.asarray(np.maximum(parts.sum(axis=0), 0.0))


def _inverse_root(s: Floats) -> Floats:
    """Symmetric inverse square root."""
    variance, vectors = np.linalg.eigh(s)
    return np.asarray(vectors / np.sqrt(np.maximum(variance, 0.0) + _RIDGE) @ vectors.T)
