"""A Sparkplug B edge node: what it says, read by our own decoder."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldlab.model import Batch, BatchBuilder, Place, SignalInfo, SignalKey, SignalTable
from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug.payload import Metric, decode
from ingest.stores.mqtt.edge_node import EdgeNode, Out
from ingest.stores.mqtt.metrics import value_of
from ingest.stores.mqtt.node_memory import NodeMemory

CNC, PRINTER = Place("drachten", "shavers", "3", "cnc-07"), Place("drachten", "shavers", "3", "printer-1")
NOW = 1_763_900_000_123_000_000
MS = NOW // 1_000_000
LOST = 0x80310000
KEYS = (
    SignalKey(CNC, "load"),
    SignalKey(CNC, "program"),
    SignalKey(PRINTER, "nozzle"),
    SignalKey(PRINTER, "count"),
)


def batch(*rows: tuple[int, int, Any, int]) -> Batch:
    """(signal, time, value, status) each."""
    builder = BatchBuilder()
    for row in rows:
        builder.add(*row)
    return builder.build()


def make(device: str = "{machine}", keys: tuple[SignalKey, ...] = KEYS) -> EdgeNode:
    return EdgeNode("plant", "line-3", device, SignalTable(keys))


def kinds(outs: list[Out]) -> list[str]:
    return ["/".join(out.topic.split("/")[2::2]) for out in outs]


def metrics(out: Out) -> dict[str | int | None, Metric]:
    return {each.name or each.alias: each for each in decode(out.payload).metrics}


def test_births_have_every_metric_with_name_alias_type_unit_and_value() -> None:
    node = make()
    node.describe(SignalInfo(key=KEYS[0], unit="%"))
    node.data(batch((0, NOW, 12.5, 0), (1, NOW, "O1234", 0), (3, NOW, 2**60 + 1, 0)), MS, historical=False)
    first, cnc, printer = node.births(7, MS + 5)
    assert [first.topic, cnc.topic, printer.topic] == [
        "spBv1.0/plant/NBIRTH/line-3",
        "spBv1.0/plant/DBIRTH/line-3/cnc-07",
        "spBv1.0/plant/DBIRTH/line-3/printer-1",
    ]
    assert [decode(each.payload).seq for each in (first, cnc, printer)] == [0, 1, 2]
    assert decode(first.payload).time == MS + 5
    own = metrics(first)
    assert (own["bdSeq"].value.raw, own["bdSeq"].datatype) == (7, t.INT64)
    assert (own["Node Control/Rebirth"].value.raw, own["Node Control/Rebirth"].datatype) == (0, t.BOOLEAN)
    told = metrics(cnc) | metrics(printer)
    found = {name: (m.alias, m.time, m.datatype, value_of(m), m.properties) for name, m in told.items()}
    assert found == {
        "load": (0, MS, t.DOUBLE, 12.5, {"engUnit": "%"}),
        "program": (1, MS, t.STRING, "O1234", {}),
        "count": (3, MS, t.INT64, 2**60 + 1, {}),
    }
    death = decode(node.death(7).payload)
    assert (death.seq, [(m.name, m.value.raw) for m in death.metrics]) == (None, [("bdSeq", 7)])


def test_a_new_metric_or_type_or_unit_is_born_before_its_reading() -> None:
    node = make()
    node.births(0, MS)
    assert kinds(node.data(batch((0, NOW, 1.0, 0), (1, NOW, "a", 0)), MS, historical=False)) == [
        "DBIRTH/cnc-07", "DDATA/cnc-07"
    ]  # fmt: skip
    assert kinds(node.data(batch((0, NOW + 1, 2.0, 0)), MS, historical=False)) == ["DDATA/cnc-07"]
    outs = node.data(
        batch((0, NOW + 2, 3.0, 0), (0, NOW + 3, "text", 0), (0, NOW + 4, "more", 0)), MS, historical=False
    )
    assert kinds(outs) == ["DDATA/cnc-07", "DBIRTH/cnc-07", "DDATA/cnc-07"]
    assert metrics(outs[1])["load"].datatype == t.STRING
    outs = node.data(batch((3, NOW, 5.0, 0), (3, NOW + 1, 2**60, 0), (3, NOW + 2, 6.0, 0)), MS, historical=False)
    assert kinds(outs) == ["DBIRTH/printer-1", "DDATA/printer-1", "DBIRTH/printer-1", "DDATA/printer-1"]
    assert node.pending(MS) == []
    node.describe(SignalInfo(key=KEYS[0], unit="N"))
    (again,) = node.pending(MS)
    assert metrics(again)["load"].properties == {"engUnit": "N"}


def test_a_machine_that_lost_every_connection_dies_and_is_born_again() -> None:
    node = make()
    node.births(0, MS)
    node.data(batch((0, NOW, 1.0, 0), (1, NOW, "a", 0), (2, NOW, 7.0, 0)), MS, historical=False)
    assert kinds(node.data(batch((0, NOW + 10**9, None, LOST)), MS, historical=False)) == ["DDATA/cnc-07"]
    data, death = node.data(batch((1, NOW + 2 * 10**9, None, LOST)), MS, historical=False)
    assert (kinds([data, death]), decode(death.payload).time) == (["DDATA/cnc-07", "DDEATH/cnc-07"], MS + 2000)
    assert metrics(data)[1].null
    assert metrics(data)[1].properties == {"Quality": 0, "StatusCode": LOST}
    assert kinds(node.births(0, MS)) == ["NBIRTH", "DBIRTH/printer-1"]
    birth, _ = node.data(batch((0, NOW + 3 * 10**9, 2.0, 0)), MS, historical=False)
    told = metrics(birth)
    assert (value_of(told["load"]), told["program"].null) == (2.0, True)


def test_the_sequence_wraps_and_starts_anew_with_each_birth() -> None:
    node = make()
    outs = node.births(0, MS)
    for i in range(600):
        outs += node.data(batch((0, NOW + i, float(i), 0)), MS, historical=False)
    assert [decode(out.payload).seq for out in outs] == [i % 256 for i in range(602)]
    assert [decode(out.payload).seq for out in node.births(0, MS)] == [0, 1]


def test_history_says_so_and_the_current_value_follows() -> None:
    node = make()
    node.data(batch((0, NOW, 1.0, 0), (2, NOW, 1.0, 0)), MS, historical=False)
    node.births(1, MS)
    (past,) = node.data(batch((0, NOW + 10**9, 2.0, 0), (0, NOW + 2 * 10**9, 3.0, 0)), MS, historical=True)
    assert [m.historical for m in decode(past.payload).metrics] == [True, True]
    (now,) = node.refresh(MS)
    (current,) = decode(now.payload).metrics
    assert (current.alias, value_of(current), current.historical, now.parts) == (0, 3.0, False, ())
    assert node.refresh(MS) == []


def test_machines_of_one_name_are_not_mixed() -> None:
    other = SignalKey(Place("drachten", "shavers", "4", "cnc-07"), "load")
    node = make(keys=(*KEYS, other))
    node.births(0, MS)
    outs = node.data(batch((0, NOW, 1.0, 0), (4, NOW, 2.0, 0)), MS, historical=False)
    refused = next(out for out in outs if out.words)
    assert [part.signal for part in refused.parts] == [4]
    assert '"{line}-{machine}"' in refused.words
    told_apart = make("{line}-{machine}", (*KEYS, other))
    outs = told_apart.data(batch((0, NOW, 1.0, 0), (4, NOW, 2.0, 0)), MS, historical=False)
    assert kinds(outs) == ["DBIRTH/3-cnc-07", "DDATA/3-cnc-07", "DBIRTH/4-cnc-07", "DDATA/4-cnc-07"]
    again = told_apart.again(decode(b"\x12" + bytes([len(refused.parts[0].data)]) + refused.parts[0].data).metrics, MS)
    assert (kinds(again), [m.historical for m in decode(again[0].payload).metrics]) == (["DDATA/4-cnc-07"], [True])


def test_a_reading_too_large_for_a_packet_is_refused_alone() -> None:
    node = make()
    node.max_packet = 1000
    outs = node.data(batch((1, NOW, "x" * 5000, 0), (1, NOW + 1, "y", 0)), MS, historical=False)
    assert [(out.words[:16], len(out.parts)) for out in outs if out.parts] == [("Packet too large", 1), ("", 1)]


VALUES = st.one_of(st.floats(), st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.none(), st.integers(0, 9))
STATUSES = st.sampled_from([0, 0, 0, 0, 0x40000000, 0x80310000, 0x800A0000])
READINGS = st.lists(st.tuples(st.integers(0, 3), st.integers(MS, MS + 100), VALUES, STATUSES), max_size=25)


@settings(max_examples=150, deadline=None)
@given(batches=st.lists(st.tuples(READINGS, st.booleans(), st.booleans()), max_size=12))
def test_a_host_understands_everything(batches: list[tuple[list[Any], bool, bool]]) -> None:
    """Numbers count up, every alias is explained by the birth in force with its type, and no reading is missing."""
    node = make()
    node.max_packet = 400
    outs = node.births(0, MS)
    expected: Counter[tuple[Any, ...]] = Counter()
    for rows, historical, reborn in batches:
        made = batch(*((signal, ms * 1_000_000, value, status) for signal, ms, value, status in rows))
        texts = {**made.texts(), **dict(zip(made.integer_row.tolist(), made.integer.tolist(), strict=True))}
        for i in range(len(made)):
            value = None if made.status[i] & 0x80000000 else texts.get(i, float(made.value[i]))
            value = None if isinstance(value, float) and np.isnan(value) else value
            expected[int(made.signal[i]), int(made.time[i]), value, int(made.status[i]), historical] += 1
        outs += node.births(0, MS) if reborn else []
        outs += node.data(made, MS, historical=historical)
    heard: Counter[tuple[Any, ...]] = Counter()
    births: dict[str, dict[int, int]] = {}
    seq = -1
    for out in outs:
        assert not out.words
        kind, device = out.topic.split("/")[2], out.topic.split("/")[-1]
        body = decode(out.payload)
        seq = 0 if kind == "NBIRTH" else (seq + 1) % 256
        assert body.seq == seq
        if kind == "NBIRTH":
            births.clear()
        elif kind == "DBIRTH":
            births[device] = {m.alias: m.datatype for m in body.metrics if m.alias is not None}
        elif kind == "DDEATH":
            del births[device]
        else:
            for metric in body.metrics:
                assert metric.alias is not None
                assert metric.time is not None
                datatype = births[device][metric.alias]
                value = value_of(metric)
                assert metric.null or isinstance(value, {t.DOUBLE: float, t.INT64: int, t.STRING: str}[datatype])
                status = metric.properties.get("StatusCode", 0)
                heard[metric.alias, metric.time * 1_000_000, value, status, metric.historical] += 1
    assert heard == expected


def test_what_must_outlive_the_process_does(tmp_path: Path) -> None:
    node, file = make(), tmp_path / "uns.edge-node"
    memory = NodeMemory(file, "plant", "line-3")
    assert [memory.next_bdseq() for _ in range(257)][-2:] == [255, 0]
    node.data(batch((0, NOW, 1.0, 0), (3, NOW, 2**60, 0)), MS, historical=False)
    memory.save(node.known)
    again = NodeMemory(file, "plant", "line-3")
    assert again.next_bdseq() == 1
    restored = make()
    restored.restore(again.metrics)
    assert [metrics(out) for out in restored.births(1, MS)] == [metrics(out) for out in node.births(1, MS)]
    assert NodeMemory(file, "plant", "another").next_bdseq() == 0
    file.write_bytes(b"\xc1")
    assert NodeMemory(file, "plant", "line-3").next_bdseq() == 0


@pytest.mark.parametrize("datatype", [t.DOUBLE, t.STRING])
def test_an_old_reading_of_another_type_does_not_break_the_birth(datatype: int) -> None:
    node = make()
    values: list[Any] = ["x", 1.0] if datatype == t.DOUBLE else [1.0, "x"]
    node.data(batch((0, NOW, values[0], 0)), MS, historical=False)
    outs = node.data(batch((0, NOW - 1, values[1], 0)), MS, historical=True)
    assert kinds(outs) == ["DBIRTH/cnc-07", "DDATA/cnc-07"]
    told = metrics(outs[0])["load"]
    assert (told.datatype, told.null) == (datatype, True)
