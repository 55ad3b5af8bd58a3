"""Event-time order, whatever the batches."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analytics.order import Sorter
from fieldlab.model import Batch

readings = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), max_size=60)


def run(rows: list[tuple[int, int]], cuts: list[int]) -> tuple[list[tuple[int, int, float]], int]:
    sorter = Sorter(10)
    out: list[tuple[int, int, float]] = []
    sorter.grow(3)

    def drain() -> None:
        batch, machine = sorter.release()
        out.extend(zip(machine.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True))

    bounds = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    for a, b in pairwise(bounds):
        machine = np.array([m for m, _ in rows[a:b]], np.int32)
        batch = Batch.of([0] * (b - a), [t for _, t in rows[a:b]], [float(i) for i in range(a, b)])
        sorter.add(batch, machine, np.ones(b - a, bool))
        drain()
    for tick in (0, 10):
        sorter.tick(tick)
    drain()
    return sorted(out, key=lambda row: row[0]), int(sorter.late.sum())


@given(readings, st.lists(st.integers(0, 60), max_size=5))
def test_cuts_change_nothing(rows: list[tuple[int, int]], cuts: list[int]) -> None:
    assert run(rows, cuts) == run(rows, [])


@given(readings)
def test_sorted_and_complete(rows: list[tuple[int, int]]) -> None:
    out, late = run(rows, [])
    assert len(out) + late == len(rows)
    for machine in range(3):
        times = [t for m, t, _ in out if m == machine]
        assert times == sorted(times)


def test_late_by_definition() -> None:
    out, late = run([(0, 50), (0, 40), (0, 39), (0, 45), (0, 60), (0, 49), (0, 50)], [])
    assert late == 2  # 39 (watermark 40) and 49 (watermark 50)
    assert [(t, v) for _, t, v in out] == [(40, 1.0), (45, 3.0), (50, 0.0), (50, 6.0), (60, 4.0)]


def test_silence_releases_by_ticks_alone() -> None:
    sorter = Sorter(10)
    sorter.grow(1)
    sorter.add(Batch.of([0], [10**6], [1.0]), np.zeros(1, np.int32), np.ones(1, bool))
    for tick, ready in [(5, 0), (14, 0), (15, 1)]:  # the first tick after data starts the count
        sorter.tick(tick)
        assert len(sorter.release()[0]) == ready
    sorter.add(Batch.of([0, 0], [10**6, 10**6 + 1], [2.0, 3.0]), np.zeros(2, np.int32), np.ones(2, bool))
    assert sorter.late.tolist() == [1]
    assert sorter.pending == 1


def test_readings_of_one_time_are_released_together() -> None:
    """A part's boundary and the readings at its very time must be seen at once, whatever the batches."""
    sorter, sizes = Sorter(10), []
    sorter.grow(1)
    for time in (5, 15, 5, 16):  # after 15 the watermark stands at 5: the second reading at 5 is not late
        sorter.add(Batch.of([0], [time], [0.0]), np.zeros(1, np.int32), np.ones(1, bool))
        sizes.append(len(sorter.release()[0]))
    assert sizes == [0, 0, 0, 2]
    assert sorter.late.tolist() == [0]
