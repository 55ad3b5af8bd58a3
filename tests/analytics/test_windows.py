"""Features of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.windows import Accumulator

values = st.lists(st.tuples(st.integers(0, 2), st.floats(-1e6, 1e6)), min_size=1, max_size=40)
FEATURES = ("mean", "last", "min", "max", "range", "std", "duration")


def feed(rows: list[tuple[int, float]], step: int) -> Accumulator:
    sums = Accumulator()
    sums.grow(3)
    for a in range(0, len(rows), step):
        some = rows[a : a + step]
        time = np.arange(a, a + len(some)) * 10**9
        sums.add(np.array([s for s, _ in some]), time, np.array([v for _, v in some]), np.zeros(len(some), np.uint32))
    return sums


@given(values)
def test_features_are_what_they_are_called(rows: list[tuple[int, float]]) -> None:
    sums = feed(rows, 100)
    for slot in range(3):
        x = np.array([v for s, v in rows if s == slot])
        got = {f: float(sums.feature(np.array([slot]), f)[0]) for f in FEATURES}  # type: ignore[arg-type]  # a plain str
        if len(x) == 0:
            assert all(np.isnan(v) for v in got.values())
            continue
        at = [i for i, (s, _) in enumerate(rows) if s == slot]
        assert got["mean"] == pytest.approx(x.mean(), rel=1e-9, abs=1e-6)
        assert (got["last"], got["min"], got["max"]) == (x[-1], x.min(), x.max())
        assert got["range"] == x.max() - x.min()
        assert got["duration"] == at[-1] - at[0]
        if len(x) > 1:
            assert got["std"] == pytest.approx(x.std(ddof=1), rel=1e-6, abs=1e-3)


@given(values, st.integers(1, 7))
def test_batches_change_no_bit(rows: list[tuple[int, float]], step: int) -> None:
    assert feed(rows, step).save() == feed(rows, 100).save()


def test_no_cancellation_on_a_large_offset() -> None:
    """NIST StRD NumAcc4."""
    sums = feed([(0, v) for v in [10000000.2] + [10000000.1, 10000000.3] * 500], 100)
    assert float(sums.feature(np.array([0]), "std")[0]) == pytest.approx(0.1, rel=1e-7)


def test_only_good_readings_count() -> None:
    sums = Accumulator()
    sums.grow(1)
    status = np.array([0, 0x40000000, 0x80000000, 0], np.uint32)
    sums.add(np.zeros(4, np.intp), np.arange(4), np.array([1.0, 100.0, np.nan, 3.0]), status)
    slot = np.array([0])
    assert float(sums.feature(slot, "mean")[0]) == 2.0
    assert (float(sums.good(slot)[0]), float(sums.other(slot)[0])) == (2.0, 2.0)
    sums.reset()
    assert np.isnan(sums.feature(slot, "mean")[0])
