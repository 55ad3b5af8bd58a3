"""What a multivariate chart knows after its baseline: its channels, their scale, the model, the limits, the memory."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics import channels as screening
from analytics import myt
from analytics.calibration import blocks_of, held_out, limits_at, standardise, worst_block
from analytics.changepoint import Change, Recent, step_change
from analytics.charts import VectorKind
from analytics.charts.t2 import HotellingChart
from analytics.charts.vector import Model, covariance, inverse
from analytics.state import pack, unpack

Floats = NDArray[np.float64]


class Refused(msgspec.Struct, frozen=True):
    """Why no limits are frozen: cause, the figure that says so, its bound, the same in words."""

    cause: str
    figure: float
    bound: float
    words: str


class Learned(msgspec.Struct, frozen=True, eq=False):
    """What a baseline gives.

    Attributes:
        frozen: the model; None if there can be none.
        refused: what speaks against it; None if nothing does.
        center: mean of the plotted statistic over the held-out blocks.
        spread: its standard deviation.
        dropped: column → why it is not used.
    """

    frozen: "FrozenModel | None"
    refused: Refused | None
    center: float = 0.0
    spread: float = 0.0
    dropped: dict[int, str] = {}


class FrozenModel:
    """A model in force, with its memory.

    Attributes:
        kept: the columns it uses, (k,).
        limits: a limit for each statistic, (s,).
        skipped: vectors passed over so far, because too little of them was there.
    """

    def __init__(self, kind: VectorKind, kept: NDArray[np.intp], model: Model, scale: Floats, limits: Floats) -> None:
        self._kind = kind
        self.kept = kept
        self._model = model
        self._scale = scale  # mean and standard deviation of each channel, (2, k)
        self.limits = limits
        self._memory = kind.memory(len(kept))
        self._z = np.zeros(len(kept))
        self._recent = Recent()
        self._recent.grow(len(kept))
        self.skipped = 0

    def step(self, x: Floats) -> Floats | None:
        """The statistics (s,) of the next vector of all columns, NaN where a value is missing.

        None if fewer than half of the channels are there; NaN while the memory fills.
        """
        z = (x[self.kept] - self._scale[0]) / self._scale[1]
        there = np.isfinite(z)
        if not there.all():
            if 2 * int(np.count_nonzero(there)) < len(z):
                self.skipped += 1
                return None
            z = self._expected(z, there)
        self._z = z
        statistics, self._memory = self._kind.step(self._model, self._memory, z)
        return statistics

    def contributions(self, which: int) -> Floats:
        """Share of each kept channel in a statistic of the vector just judged, (k,); they sum to 1."""
        parts = self._kind.contributions(self._model, self._memory, self._z, which)
        total = float(parts.sum())
        return parts / total if total > 0 else parts

    def remember(self, time: int) -> None:
        """Keep the vector just judged, for `change`."""
        k = len(self.kept)
        self._recent.add(np.arange(k), np.full(k, time, np.int64), self._z)

    def calm(self) -> None:
        """Back in control: what was before says nothing of the next change."""
        for i in range(len(self.kept)):
            self._recent.forget(i)

    def explain(self, i: int, name: str, unit: str) -> str:
        """What a kept channel says in the vector just judged, in words: a wrong level, or a broken relation."""
        precision, (mean, sigma) = self._model["among"], self._scale[:, i].tolist()
        z, others = float(self._z[i]), float(myt.expected(precision, self._z)[i])
        term = float(myt.conditional(precision, self._z)[i])
        return myt.words(name, mean + z * sigma, z, mean + others * sigma, term, others, unit)

    def change(self, i: int) -> Change:
        """The most likely step of a kept channel: of its level, or of its distance from what the others let expect."""
        precision = self._model["among"]
        times, level = self._recent.history(i)
        vectors = np.stack([self._recent.history(j)[1] for j in range(len(self.kept))], axis=1)
        relation = vectors @ precision[i] / np.sqrt(max(precision[i, i], 1e-300))
        found = [(values, step_change(values, 0.0)) for values in (level, relation)]
        values, first = max(found, key=lambda each: float(np.sum(each[0][each[1] :]) ** 2) / len(each[0][each[1] :]))
        return Change(int(times[first]), len(values) - first, float(values[first:].mean()))

    def _expected(self, z: Floats, there: NDArray[np.bool_]) -> Floats:
        """Missing channels by their conditional mean, given those that are there."""
        gone, filled = ~there, z.copy()
        p = self._model["among"]
        filled[gone] = -np.linalg.lstsq(p[np.ix_(gone, gone)], p[np.ix_(gone, there)] @ z[there], rcond=None)[0]
        return filled

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {
            "kept": pack(self.kept),
            "model": {name: pack(array) for name, array in self._model.items()},
            "scale": pack(self._scale),
            "limits": pack(self.limits),
            "memory": pack(self._memory),
            "skipped": self.skipped,
            "recent": self._recent.save() if len(self._recent.history(0)[0]) else None,
        }

    @classmethod
    def load(cls, kind: VectorKind, saved: dict[str, Any]) -> "FrozenModel":
        """The model of `save`."""
        model = {name: unpack(array) for name, array in saved["model"].items()}
        found = cls(kind, unpack(saved["kept"]), model, unpack(saved["scale"]), unpack(saved["limits"]))
        found._memory, found.skipped = unpack(saved["memory"]), saved["skipped"]
        if saved["recent"]:
            found._recent.load(saved["recent"])
        return found


def learn(kind: VectorKind, baseline: Floats, rate: float, *, drop_drifting: bool) -> Learned:
    """Learn channels, model and limits from a baseline (n, p), NaN where a value is missing.

    `rate` is the designed rate of false alarms a vector.
    """
    chosen = screening.choose(baseline, drop_drifting=drop_drifting)
    refused = None
    if len(chosen.kept) == 0 and drop_drifting:  # what all channels do is no drift of some
        chosen = screening.choose(baseline, drop_drifting=False)
        words = "every channel drifts. Let the machine settle, or learn from a longer baseline"
        refused = Refused("drift", screening.DRIFT_SHARE, screening.DRIFT_SHARE, words)
    kept, n = chosen.kept, len(baseline)
    if len(kept) == 0:
        words = f"none of {baseline.shape[1]} channels can be used: the first {next(iter(chosen.dropped.values()), '')}"
        return Learned(None, Refused("channels", 0.0, 1.0, words), dropped=chosen.dropped)
    left, least = n - -(-n // blocks_of(n)), kind.least(len(kept))
    if left < least:
        words = f"{n} vectors are too few for {len(kept)} channels: {least} are needed beside a held-out block"
        return Learned(None, Refused("short", left, least, words), dropped=chosen.dropped)
    x = screening.fill(baseline[:, kept])
    held = held_out(kind, x)
    limits = limits_at(held, rate)
    single = HotellingChart()  # without memory: a moving average wanders, also where nothing changes
    block, ratio = worst_block(held if kind.statistics == single.statistics else held_out(single, x), rate)
    if ratio > 1:
        words = (
            f"part {block + 1} of the baseline is unlike the rest: its median T2 is {ratio:.1f} times the limit that "
            "the rest gives. Let the machine settle, or learn from a longer baseline"
        )
        refused = Refused("unstable", ratio, 1.0, words)
    mean, sigma = standardise(x)
    z = (x - mean) / sigma
    model = kind.fit(z) | {"among": inverse(covariance(z))}
    plotted = held[:, 0] if len(limits) == 1 else np.max(held / limits, axis=1)
    plotted = plotted[np.isfinite(plotted)]
    frozen = FrozenModel(kind, kept, model, np.stack([mean, sigma]), limits)
    return Learned(frozen, refused, float(plotted.mean()), float(plotted.std()), chosen.dropped)
