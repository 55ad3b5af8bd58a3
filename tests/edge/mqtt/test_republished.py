"""What the MQTT store publishes natively, the MQTT source reads as it was."""

import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldlab.model import BatchBuilder, Place, SignalInfo, SignalKey, SignalTable
from fieldlab.model.status import BAD
from ingest.stores.mqtt import native

START = 1_763_900_000_000_000  # us
VALUES = st.one_of(st.floats(), st.text(max_size=30), st.integers(-(2**63), 2**63 - 1), st.none(), st.booleans())
STATUSES = st.sampled_from([0, 0, 0, 0x40000000, 0x80310000])
ROWS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**9), VALUES, STATUSES), max_size=40)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_the_source_reads_what_the_store_wrote(ear: Any, rows: list[tuple[int, int, Any, int]]) -> None:
    signals = SignalTable([SignalKey(Place("drachten", "shavers", "3", "cnc-07"), f"s{i}") for i in range(3)])
    builder = BatchBuilder()
    for signal, at, value, status in rows:
        builder.add(signal, (START + at) * 1000, value, status)
    batch = builder.build()
    texts = batch.texts()
    expected: dict[str, list[Any]] = {}
    for i in range(len(batch)):
        number = float(batch.value[i])
        value = texts.get(i, None if math.isnan(number) else number)
        row = (None if batch.status[i] & BAD else value, int(batch.time[i]), int(batch.status[i]))
        expected.setdefault(f"cnc-07/s{batch.signal[i]}", []).append(row)
    heard: dict[str, list[Any]] = {}
    made = ear("json")
    for key in signals.since(0):
        made.describe(SignalInfo(key=key))
    for told in native.told(batch, signals, "fieldlab", 256_000):
        for name, value, at, status in made.say(told.topic, told.payload):
            heard.setdefault(name, []).append((value, at, status))
    assert heard == expected
