import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldlab.model import Batch, BatchBuilder, concat
from fieldlab.model.status import BAD_NO_COMMUNICATION, BAD_OUT_OF_RANGE, UNCERTAIN

steady = settings(deadline=None)  # a slow machine is no fault
I64 = st.integers(-(2**63), 2**63 - 1)
VALUES = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.sampled_from([2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**400, -(10**400)])
    | st.text(st.characters(), max_size=5)
)
STATUSES = st.sampled_from([0, UNCERTAIN, BAD_NO_COMMUNICATION, 0x00960000, 0xFFFFFFFF])
READINGS = st.lists(st.tuples(st.integers(0, 2**32 - 1), I64, VALUES, STATUSES), max_size=20)

Reading = tuple[int, int, float | str | int | None, int]


def modelled(signal: int, time: int, value: float | bool | str | None, status: int) -> Reading:
    """What a reading must look like, one at a time."""
    if status & 0x80000000:
        return signal, time, None, status
    if isinstance(value, str):
        return signal, time, value, status
    if value is None:
        return signal, time, None, BAD_OUT_OF_RANGE
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53 and -(2**63) <= value < 2**63:
        return signal, time, value, status
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    return (signal, time, number, status) if np.isfinite(number) else (signal, time, None, BAD_OUT_OF_RANGE)


def readings(batch: Batch) -> list[Reading]:
    batch.check()
    texts = batch.texts()
    integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    found: list[Reading] = []
    for row in range(len(batch)):
        value: float | str | int | None = float(batch.value[row])
        if row in texts:
            assert np.isnan(batch.value[row])
            value = texts[row]
        elif row in integers:
            assert value == float(integers[row])
            value = integers[row]
        elif np.isnan(batch.value[row]):
            value = None
        found.append((int(batch.signal[row]), int(batch.time[row]), value, int(batch.status[row])))
    return found


def build(given: list[tuple[int, int, float | str | None, int]]) -> Batch:
    builder = BatchBuilder()
    for reading in given:
        builder.add(*reading)
    assert len(builder) == len(given)
    batch = builder.build()
    assert len(builder) == 0
    return batch


@steady
@given(READINGS)
def test_a_builder_keeps_what_it_was_given(given: list[tuple[int, int, float | str | None, int]]) -> None:
    assert readings(build(given)) == [modelled(*reading) for reading in given]


@steady
@given(READINGS, st.data())
def test_take_chooses_rows_in_order(given: list[tuple[int, int, float | str | None, int]], data: st.DataObject) -> None:
    batch = build(given)
    every = readings(batch)
    rows = data.draw(st.lists(st.integers(0, len(given) - 1), max_size=30) if given else st.just([]))
    assert readings(batch.take(np.array(rows, np.intp))) == [every[row] for row in rows]
    mask = data.draw(st.lists(st.booleans(), min_size=len(given), max_size=len(given)))
    assert readings(batch.take(np.array(mask, np.bool_))) == [
        r for r, chosen in zip(every, mask, strict=True) if chosen
    ]


@steady
@given(st.lists(READINGS, max_size=4))
def test_concat_keeps_every_reading_in_order(parts: list[list[tuple[int, int, float | str | None, int]]]) -> None:
    assert readings(concat([build(part) for part in parts])) == [modelled(*r) for part in parts for r in part]


def test_numbers_that_are_not_numbers_have_no_value() -> None:
    batch = Batch.of([1, 1, 1, 1], [1, 2, 3, 4], [np.nan, np.inf, 5.0, 6.0], [0, UNCERTAIN, BAD_NO_COMMUNICATION, 0])
    assert batch.status.tolist() == [BAD_OUT_OF_RANGE, BAD_OUT_OF_RANGE, BAD_NO_COMMUNICATION, 0]
    assert np.isnan(batch.value).tolist() == [True, True, True, False]


def test_the_given_columns_are_not_changed() -> None:
    value, status = np.array([np.inf]), np.array([0], np.uint32)
    Batch.of([0], [0], value, status)
    assert np.isinf(value[0])
    assert status[0] == 0


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Batch.of([1, 2], [1], [1.0])


def test_check_finds_side_columns_that_do_not_fit() -> None:
    good = Batch.of([1], [1], [1.0])
    bad = Batch(good.signal, good.time, good.value, good.status, np.array([1], np.uint32), ("x",))
    with pytest.raises(ValueError, match="side column"):
        bad.check()


@pytest.mark.parametrize("time", [2**63, -(2**63) - 1])
def test_a_time_outside_the_clock_is_refused_alone(time: int) -> None:
    builder = BatchBuilder()
    builder.add(0, 5, 1.0)
    with pytest.raises(ValueError, match="outside the years"):
        builder.add(0, time, 1.0)
    assert builder.build().time.tolist() == [5]
