"""What a chart takes from a window or part: a value, and what goes with it where its kind needs more."""

import numpy as np
from numpy.typing import NDArray

from analytics.charts.short_run import recipe_code
from analytics.config import COUNT_KINDS, XBAR_KINDS, ChartConfig
from analytics.parts import text_at
from analytics.windows import Accumulator
from fieldlab.model import Batch, SignalInfo
from fieldlab.model.status import is_good

Floats = NDArray[np.float64]


def charted(
    sums: Accumulator, slot: NDArray[np.intp], companion: int | None, chart: ChartConfig, length_ns: int | None = None
) -> tuple[Floats, Floats | None]:
    """Value (k,), NaN where there is none, and the further columns of an item (k, columns - 1), if it has any.

    Args:
        sums: of the window or part.
        slot: of the charted signals, (k,).
        companion: slot of the signal that says the sample's size or the recipe, if the chart names one.
        chart: what is charted.
        length_ns: length of the window.
    """
    if chart.kind in XBAR_KINDS and chart.subgroup == 0:
        return sums.feature(slot, "mean"), np.column_stack([sums.feature(slot, "std"), sums.good(slot)])
    value = sums.feature(slot, chart.charted, length_ns)
    if not chart.companion:
        return value, None
    if companion is None:  # the companion has not been seen yet
        return value, np.full((len(slot), 1), np.nan)
    at = np.array([companion])
    said = sums.feature(at, "sum") if chart.kind in COUNT_KINDS else sums.steady(at)
    return value, np.full((len(slot), 1), said[0])


def with_recipes(batch: Batch, recipes: dict[int, SignalInfo]) -> Batch:
    """The batch with every Good reading of these signals as its recipe's number (see `recipe_code`)."""
    rows = np.flatnonzero(np.isin(batch.signal, list(recipes)) & is_good(batch.status))
    if len(rows) == 0:
        return batch
    value = batch.value.copy()
    for row in rows.tolist():
        text = text_at(batch, row, recipes[int(batch.signal[row])])
        value[row] = np.nan if text is None else recipe_code(text)
    return Batch(
        batch.signal, batch.time, value, batch.status, batch.text_row, batch.text, batch.integer_row, batch.integer
    )  # fmt: skip


def in_force(times: NDArray[np.int64], of_time: NDArray[np.int64], of_value: Floats, before: float) -> Floats:
    """What the companion says at each of `times`: its newest value at or before, `before` if there is none.

    Args:
        times: event times, ns, (n,).
        of_time: sorted event times of the companion's values, (m,).
        of_value: those values, (m,).
        before: its value before them.
    """
    at = np.searchsorted(of_time, times, side="right")
    return np.asarray(np.concatenate([[before], of_value])[at])
