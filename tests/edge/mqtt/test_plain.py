"""The format `plain`: numbers, booleans and text as they stand, and what is none of them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.mqtt.payload import PayloadError
from edge.sources.mqtt.plain import PlainPayload
from edge.sources.mqtt.rows import Rows
from fieldlab.errors import ConfigError

TOPIC = "fieldlab/drachten/shavers/3/printer-1/log"
UNCERTAIN = 0x40900000


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"21.5", 21.5), (b" -3 \n", -3.0), (b"1e3", 1000.0), (b"true", 1.0), (b"false", 0.0), (b'"quoted"', "quoted"),
        (b"ON", "ON"), (b"started at 10:00", "started at 10:00"), (b"21,5", "21,5"), (b"007", "007"),
        (b"\xc2\xb0C", "°C"), (b"  idle\r\n", "idle"), (b"unavailable", "unavailable"), (b"+5", "+5"),
    ],
)  # fmt: skip
def test_values(payload: bytes, value: Any) -> None:
    for retained, status in ((False, 0), (True, UNCERTAIN)):  # an old value, without a time
        rows = Rows()
        assert PlainPayload().read(payload, 3, 1000, rows, retained=retained) == 1
        batch = rows.build()
        found = batch.texts().get(0, float(batch.value[0]))
        assert (int(batch.signal[0]), int(batch.time[0]), found, int(batch.status[0])) == (3, 1000, value, status)


@pytest.mark.parametrize("payload", [b"NaN", b"-inf", b"Infinity", b"null"])
def test_what_is_no_number_has_no_value(payload: bytes) -> None:
    rows = Rows()
    assert PlainPayload().read(payload, 0, 1, rows) == 1
    batch = rows.build()
    assert not batch.texts()
    assert batch.value[0] != batch.value[0]  # NaN, which becomes BadOutOfRange like any


@pytest.mark.parametrize("payload", [b"", b" \n", b"\xff", b'{"value": 1}', b"[1]", b"{", b"x" * 10_001])
def test_what_is_set_aside(payload: bytes) -> None:
    rows = Rows()
    with pytest.raises(PayloadError):
        PlainPayload().read(payload, 0, 1, rows)
    assert len(rows) == 0


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"value": ""}, "value"),
        ({"time": ""}, "time"),
        ({"values": {"a": "b"}}, "values"),
        ({"topic": "a/{machine}"}, "topic"),
    ],
)
def test_keys_that_make_no_sense(ear: Any, keys: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ear("plain", **({"machine": "m"} | keys))
    assert caught.value.key == key


@given(st.text(max_size=50) | st.binary(max_size=50))
def test_anything_is_one_reading_or_the_declared_error(raw: str | bytes) -> None:
    rows = Rows()
    try:
        added = PlainPayload().read(raw.encode(errors="replace") if isinstance(raw, str) else raw, 0, 1, rows)
    except PayloadError:
        added = 0
    assert len(rows) == added <= 1


def test_many_at_a_real_broker(mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any) -> None:
    run(mosquitto_ := mosquitto(), sink, format="plain")
    said = ["1.5", "ON", "2.5", "true", "OFF", *(str(float(i)) for i in range(100))]
    publisher(mosquitto_).send(TOPIC, *said)
    wait_until(lambda: len(sink.values()) == len(said))
    assert sink.values() == [1.5, "ON", 2.5, 1.0, "OFF", *(float(i) for i in range(100))]
