"""JSON payloads: what a reading is, and nothing but the declared error."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.payload import JsonPayload, PayloadError
from edge.sources.mqtt.rows import Rows
from fieldlab.model import Batch

steady = settings(deadline=None)  # a slow machine is no fault
NOW = 1_795_000_000_000_000_000
MS = NOW // 1_000_000
finite = st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), finite, st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["value", "ts", "status", "x"]), inner)
    ),
    max_leaves=20,
)


def read(
    payload: Any, *, value: str = "value", time: str = "ts", status: str = "status", retained: bool = False
) -> Batch:
    rows = Rows()
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    count = JsonPayload(value, time, status).read(raw, 7, NOW, rows, retained=retained)
    batch = rows.build()
    assert len(batch) == count
    return batch


def one(payload: Any, **paths: Any) -> tuple[float | str, int, int]:
    batch = read(payload, **paths)
    assert len(batch) == 1
    assert batch.signal[0] == 7
    return batch.texts().get(0, float(batch.value[0])), int(batch.time[0]), int(batch.status[0])


@pytest.mark.parametrize(
    ("payload", "reading"),
    [
        ({"value": 1.5, "ts": MS, "status": 0}, (1.5, NOW, 0)),
        ({"value": 3, "ts": MS}, (3.0, NOW, 0)),
        ({"value": True}, (1.0, NOW, 0)),
        ({"value": "on", "ts": None}, ("on", NOW, 0)),
        ({"value": "", "ts": MS}, ("", NOW, 0)),
        ({"value": 2.0, "status": 0x40000000}, (2.0, NOW, 0x40000000)),
        ({"value": 2.0, "status": "Good"}, (2.0, NOW, 0)),
        ({"value": 2.0, "status": 0.0}, (2.0, NOW, 0)),
        (b'{"value": 1, "value": 2}', (2.0, NOW, 0)),
    ],
)
def test_single_values(payload: Any, reading: Any) -> None:
    assert one(payload) == reading


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ({"value": None}, 0x803C0000),
        ({"value": 5.0, "status": 0x80000000}, 0x80000000),
        ({"status": "bad"}, 0x80000000),
        ({"value": "text", "status": 0x80310000}, 0x80310000),
        (b'{"value": 1' + b"0" * 400 + b"}", 0x803C0000),
    ],
)
def test_readings_without_a_value(payload: Any, status: Any) -> None:
    value, _, code = one(payload)
    assert isinstance(value, float)
    assert math.isnan(value)
    assert code == status


@pytest.mark.parametrize(
    "payload",
    [
        *(
            b"",
            b"{",
            b"NaN",
            b'{"value": NaN}',
            b"\xff",
            b'{"value": "\xff"}',
            b"[" * 100_000,
            b'{"value": 1e999}',
            b"21,5",
        ),
        *(
            {},
            {"value": {}},
            {"value": [1]},
            {"value": [1], "ts": MS},
            {"value": [1], "ts": [MS, MS]},
            {"value": [[1]], "ts": [MS]},
        ),
        *(
            {"value": 1, "ts": 5},
            {"value": 1, "ts": "x"},
            {"value": 1, "ts": True},
            {"value": 1, "status": -1},
            [1],
            5,
            "x",
            None,
        ),
        *({"value": 1, "status": True}, {"value": 1, "status": None}, {"value": [1], "ts": [MS], "status": [0, 0]}),
        {"value": [1.0, 2.0], "ts": [MS, 5]},
    ],
)
def test_what_cannot_be_read_adds_nothing(payload: Any) -> None:
    rows = Rows()
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with pytest.raises(PayloadError, match=r"\S"):
        JsonPayload().read(raw, 0, NOW, rows)
    assert len(rows) == 0


def test_a_plain_payload() -> None:
    assert one(21.5, value="") == (21.5, NOW, 0)
    assert one("printing", value="") == ("printing", NOW, 0)
    assert one(b" 7 ", value="", time="", status="") == (7.0, NOW, 0)


def test_dotted_paths() -> None:
    payload = {"data": {"temps": [{"actual": 60.5}, {"actual": 210.5}]}, "meta": {"time": MS}}
    assert one(payload, value="data.temps.1.actual", time="meta.time", status="") == (210.5, NOW, 0)
    with pytest.raises(PayloadError, match="nothing at"):
        one(payload, value="data.temps.2.actual")


def test_a_retained_value_without_a_time_is_uncertain() -> None:
    assert one({"value": 1.0}, retained=True) == (1.0, NOW, 0x40900000)
    assert one({"value": 1.0, "ts": MS}, retained=True) == (1.0, NOW, 0)


@steady
@given(st.lists(st.one_of(finite, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(), st.none()), max_size=20))
def test_arrays_equal_single_values(values: Any) -> None:
    times = [MS - i for i in range(len(values))]
    batch = read({"value": values, "ts": times})
    singles = [read({"value": v, "ts": t}) for v, t in zip(values, times, strict=True)]
    assert batch.time.tolist() == [int(s.time[0]) for s in singles]
    assert batch.value.tolist() == pytest.approx([float(s.value[0]) for s in singles], nan_ok=True, rel=0, abs=0)
    assert batch.status.tolist() == [int(s.status[0]) for s in singles]
    assert list(batch.text) == [t for s in singles for t in s.text]
    assert batch.integer.tolist() == [int(i) for s in singles for i in s.integer]


@steady
@given(finite, st.integers(1_000_000_000_000, MS))
def test_numbers_and_times_round_trip(value: Any, ms: Any) -> None:
    assert one({"value": value, "ts": ms}) == (value, ms * 1_000_000, 0)


@steady
@given(anything, st.sampled_from(["", "value", "x.value", "0", "value.0.x"]))
def test_any_json_gives_readings_or_the_declared_error(document: Any, path: Any) -> None:
    rows = Rows()
    try:
        count = JsonPayload(path).read(msgspec.json.encode(document), 0, NOW, rows)
    except PayloadError:
        assert len(rows) == 0
    else:
        assert len(rows.build()) == count


@steady
@given(st.binary())
def test_any_bytes_give_readings_or_the_declared_error(payload: Any) -> None:
    rows = Rows()
    try:
        JsonPayload("").read(payload, 0, NOW, rows)
    except PayloadError:
        assert len(rows) == 0
    rows.build()
