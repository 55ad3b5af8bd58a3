"""Every builtin type, alone and as an array, from a server whose stack we did not write: what is stored of it."""

from typing import Any

import pytest

GOOD, OUT_OF_RANGE, BAD_SENSOR, UNCERTAIN = 0, 0x803C0000, 0x808C0000, 0x40900000
GUIDS = ["72962b91-fa75-4ae6-8d28-b404dc7daf63", "00000000-0000-0000-0000-000000000001"]
FIRST, LAST = "1601-01-01T00:00:00Z", "9999-12-31T23:59:59Z"

# builtin type → values as they are given to the server, and what is stored of each.
TABLE: dict[str, tuple[list[Any], list[Any]]] = {
    "Boolean": ([True, False], [1.0, 0.0]),
    "SByte": ([-128, 127], [-128.0, 127.0]),
    "Byte": ([0, 255], [0.0, 255.0]),
    "Int16": ([-(2**15), 2**15 - 1], [-32768.0, 32767.0]),
    "UInt16": ([0, 2**16 - 1], [0.0, 65535.0]),
    "Int32": ([-(2**31), 2**31 - 1], [-(2.0**31), 2.0**31 - 1]),
    "UInt32": ([0, 2**32 - 1], [0.0, 2.0**32 - 1]),
    "Int64": ([str(-(2**63)), str(2**53 + 1)], [-(2**63), 2**53 + 1]),
    "UInt64": ([str(2**63 - 1), str(2**64 - 1)], [2**63 - 1, 2.0**64]),  # beyond Int64 the nearest float
    "Float": ([0.5, "NaN", "-Infinity"], [0.5, OUT_OF_RANGE, OUT_OF_RANGE]),
    "Double": ([0.1, "NaN", "Infinity", -1e308], [0.1, OUT_OF_RANGE, OUT_OF_RANGE, -1e308]),
    "String": (["tool 12 °", ""], ["tool 12 °", ""]),
    "DateTime": (["2026-11-23T20:00:00.250Z", FIRST, LAST], [1795464000.25, -11644473600.0, 253402300799.0]),
    "Guid": (GUIDS, GUIDS),
    "ByteString": (["abc", ""], ["YWJj", ""]),
    "NodeId": (["ns=1;s=Load", "i=85", f"ns=1;g={GUIDS[0]}"], ["ns=1;s=Load", "i=85", f"ns=1;g={GUIDS[0]}"]),
    "ExpandedNodeId": (["ns=1;i=7", "i=84"], ["ns=1;i=7", "i=84"]),
    "StatusCode": (["BadSensorFailure", "Good"], [float(BAD_SENSOR), 0.0]),
    "QualifiedName": (["1:Load", "Axis"], ["Load", "Axis"]),
    "LocalizedText": (["Leerlauf", ""], ["Leerlauf", ""]),
    "Variant": ([{"type": "Double", "value": 1.5}, {"type": "String", "value": "x"}], [1.5, "x"]),
    "DataValue": (
        [{"type": "Int32", "value": 7}, {"type": "Int32", "value": 8, "status": "BadSensorFailure"}],
        [7.0, BAD_SENSOR],
    ),
}
UNSCALAR = {"Variant"}  # a Variant holds Variants in arrays only, OPC 10000-6, 5.2.2.16


def stored(expected: Any) -> tuple[Any, int]:
    return (None, expected) if expected in (OUT_OF_RANGE, BAD_SENSOR) and isinstance(expected, int) else (expected, 0)


@pytest.fixture(scope="module")
def variables() -> dict[str, dict[str, Any]]:
    found = {}
    for kind, (values, _) in TABLE.items():
        found[f"{kind}_array"] = {"type": kind, "value": values}
        if kind not in UNSCALAR:
            found |= {f"{kind}_{i}": {"type": kind, "value": value} for i, value in enumerate(values)}
    return found


def test_every_builtin_type(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, variables: dict[str, dict[str, Any]]
) -> None:
    expected: dict[str, tuple[Any, int]] = {}
    for kind, (_, kept) in TABLE.items():
        expected |= {f"{kind}_array[{i}]": stored(one) for i, one in enumerate(kept)}
        if kind not in UNSCALAR:
            expected |= {f"{kind}_{i}": stored(one) for i, one in enumerate(kept)}
    server = shared(variables)
    source = run_source(table(server, list(variables)), sink)
    wait_until(lambda: len(sink.readings()) >= len(expected), what="a row each")
    assert {r.name: (r.value, r.status) for r in sink.readings()} == expected
    assert len(sink.readings()) == len(expected)
    times = {name: time for name, time, _, _ in server.produced()}
    assert {r.time for r in sink.readings("Double_0")} == {times["Double_0"]}
    assert source.status.counters["unkept"] == source.status.counters["undecodable"] == 0
    assert sink.letters == []


def test_by_polling_it_is_the_same(
    shared: Any, sink: Any, new_sink: Any, table: Any, run_source: Any, wait_until: Any, variables: Any
) -> None:
    server = shared(variables)
    run_source(table(server, list(variables)), sink)
    polled = new_sink()
    source = run_source(table(server, list(variables), mode="poll", sampling="50ms"), polled)
    wait_until(lambda: source.status.counters["reads"] >= 2)
    wait_until(lambda: len(sink.readings()) >= len(polled.readings()) > 0)
    assert set(sink.readings()) == set(polled.readings())
