"""Several signals in one payload: names and paths with wildcards."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.mqtt.fields import Fields, FieldsError

steady = settings(deadline=None)  # a slow machine is no fault
REPORT = {
    "temps": {"tool0": {"actual": 210.5, "target": 215}, "bed": {"actual": 60.0, "target": 60}},
    "data": {"flow": 98, "fan": 0.5, "state": "printing", "on": True, "deep": {"x": 1}, "axes": [1.0, 2.0, [3]]},
    "list": [{"v": 1}, {"v": 2}],
}


@pytest.mark.parametrize(
    ("values", "found", "skipped"),
    [
        ({"nozzle": "temps.tool0.actual"}, {"nozzle": 210.5}, 0),
        ({"second": "list.1.v", "none": "list.2.v", "no": "data.flow.x"}, {"second": 2}, 0),
        ({"*.actual": "temps.*.actual"}, {"tool0.actual": 210.5, "bed.actual": 60.0}, 0),
        ({"t-*-*": "temps.*.*", "nozzle": "temps.tool0.actual"}, {
            "nozzle": 210.5, "t-tool0-target": 215, "t-bed-actual": 60.0, "t-bed-target": 60}, 0),
        ({"v*": "list.*.v"}, {"v0": 1, "v1": 2}, 0),
        ({"*": "data.*"}, {
            "flow": 98, "fan": 0.5, "state": "printing", "on": True, "axes[0]": 1.0, "axes[1]": 2.0}, 2),
        ({"x": "data"}, {}, 1),
    ],
)  # fmt: skip
def test_values(values: Any, found: Any, skipped: int) -> None:
    fields = Fields(values)
    assert dict(fields.find(REPORT)) == found
    assert fields.skipped == skipped


def test_names_that_cannot_be_are_passed_over_and_counted() -> None:
    fields = Fields({"*": "*"})
    assert fields.find({"a/b": 1, "_x": 2, "": 3, "#": 4, "good": 5, "x" * 300: 6}) == [("good", 5)]
    assert fields.skipped == 5


def test_a_payload_with_too_many_values() -> None:
    with pytest.raises(FieldsError, match="narrow"):
        Fields({"*": "*"}).find({str(i): i for i in range(10_001)})


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from("abc"), st.text()), inner)
    ),
    max_leaves=20,
)


@steady
@given(anything, st.lists(st.sampled_from(["a", "b", "0", "*"]), min_size=1, max_size=3))
def test_any_document(document: Any, keys: Any) -> None:
    name = "x" + ".*" * keys.count("*")
    names = [each for each, _ in Fields({name: ".".join(keys)}).find(document)]
    assert len(set(names)) == len(names)
    assert all(each.startswith("x") for each in names)


def test_the_source_reads_them(mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any) -> None:
    broker = mosquitto()
    values = {"nozzle": "temps.tool0.actual", "*": "data.*"}
    running = run(broker, sink, topic="plant/{machine}/telemetry", values=values)
    publish = publisher(broker).send
    publish("plant/printer-1/telemetry", json.dumps(REPORT | {"ts": "2024-05-01T10:00:00Z"}))
    publish(
        "plant/printer-1/telemetry", '{"data": {"flow": 97}}', '{"other": 1}', "5", '{"data": {"flow": 1}, "ts": 5}'
    )
    wait_until(lambda: len(sink.readings()) == 8 and len(sink.letters()) == 2)
    readings = sink.readings()
    assert {name: value for name, time, value, _ in readings if time == 1_714_557_600_000_000_000} == {
        "printer-1/nozzle": 210.5,
        "printer-1/flow": 98.0,
        "printer-1/fan": 0.5,
        "printer-1/state": "printing",
        "printer-1/on": 1.0,
        "printer-1/axes[0]": 1.0,
        "printer-1/axes[1]": 2.0,
    }
    assert [(name, value) for name, _, value, _ in readings[7:]] == [("printer-1/flow", 97.0)]
    counters = running.source.status().counters
    assert (counters["readings"], counters["skipped"], counters["empty"], counters["set_aside"]) == (8, 2, 1, 2)
    assert [(letter.machine, letter.body) for letter in sink.letters()] == [
        ("drachten/shavers/3/printer-1", b"5"),
        ("drachten/shavers/3/printer-1", b'{"data": {"flow": 1}, "ts": 5}'),
    ]
    assert set(sink.guarantees.values()) == {"end-to-end"}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_ten_megabytes(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, protocol: str
) -> None:
    topic = "fieldlab/drachten/shavers/3/printer-1/nozzle"
    broker = mosquitto()
    running = run(broker, sink, protocol=protocol)
    n = 400_000
    start = 1_714_557_600_000
    array = json.dumps({"value": [i / 8 for i in range(n)], "ts": [start + i for i in range(n)]})
    publish = publisher(broker).send
    publish(topic, payload(1.0, 1), array, "x" * 10_000_000, payload(2.0, 2))
    wait_until(lambda: len(sink.letters()) == 1 and sum(len(c.batch) for c in sink.calls if c.batch) == n + 2, 60.0)
    batches = [call.batch for call in sink.calls if call.batch is not None]
    assert math.fsum(float(b.value.sum()) for b in batches) == sum(i / 8 for i in range(n)) + 3.0
    assert [len(letter.body) for letter in sink.letters()] == [10_000_000]
    assert running.counter("connects") == 1
