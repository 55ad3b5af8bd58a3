"""Against a server whose stack we did not write: everything it produced is received once, as it was."""

from collections import Counter
from typing import Any

import pytest

GOOD, UNCERTAIN, BAD_SENSOR = 0, 0x40000000, 0x808C0000
OUT_OF_RANGE = 0x803C0000

SCALARS = {
    "boolean": ("Boolean", True, 1.0),
    "sbyte": ("SByte", -5, -5.0),
    "byte": ("Byte", 250, 250.0),
    "int16": ("Int16", -12345, -12345.0),
    "uint16": ("UInt16", 54321, 54321.0),
    "int32": ("Int32", -(2**31), -(2.0**31)),
    "uint32": ("UInt32", 2**32 - 1, 2.0**32 - 1),
    "int64": ("Int64", "-9007199254740993", -9007199254740993),
    "uint64": ("UInt64", "9007199254740993", 9007199254740993),
    "uint64_huge": ("UInt64", str(2**64 - 1), float(2**64)),
    "int64_small": ("Int64", "-42", -42.0),
    "float": ("Float", 0.5, 0.5),
    "double": ("Double", 0.1, 0.1),
    "string": ("String", "tool 12 °", "tool 12 °"),
    "localized": ("LocalizedText", "Leerlauf", "Leerlauf"),
    "datetime": ("DateTime", "2026-11-23T20:00:00.250Z", 1795464000.25),
    "guid": ("Guid", "72962b91-fa75-4ae6-8d28-b404dc7daf63", "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
}


def test_every_type_arrives_with_its_own_time(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({n: {"type": t, "value": v} for n, (t, v, _) in SCALARS.items()})
    run_source(table(server, list(SCALARS)), sink)
    wait_until(lambda: len(sink.readings()) == len(SCALARS), what="one reading a signal")
    times = {name: time for name, time, _, _ in server.produced()}
    got = {r.name: r for r in sink.readings()}
    for name, (_, _, expected) in SCALARS.items():
        assert got[name] == (name, times[name], expected, GOOD)
    assert len(set(times.values())) == len(times), "the server gave each its own tick"


def test_arrays_statuses_and_what_cannot_be_kept(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared(
        {
            "array": {"type": "Double", "value": [1.0, "NaN", 3.0]},
            "matrix": {"type": "Int32", "value": [1, 2, 3, 4], "dimensions": [2, 2]},
            "texts": {"type": "String", "value": ["a", "b"]},
            "range": {"type": "ExtensionObject", "value": None},
            "bytes": {"type": "ByteString", "value": "abc"},
            "infinite": {"type": "Double", "value": "Infinity"},
            "value": {"type": "Double", "value": 1.0},
            "text": {"type": "String", "value": "x"},
        }
    )
    names = ["array", "matrix", "texts", "range", "bytes", "infinite", "value", "text"]
    source = run_source(table(server, names), sink)
    wait_until(lambda: len(sink.readings()) == 15, what="every element")
    got = {r.name: (r.value, r.status) for r in sink.readings()}
    assert got == {
        "array[0]": (1.0, GOOD), "array[1]": (None, OUT_OF_RANGE), "array[2]": (3.0, GOOD),
        "matrix[0]": (1.0, GOOD), "matrix[1]": (2.0, GOOD), "matrix[2]": (3.0, GOOD), "matrix[3]": (4.0, GOOD),
        "texts[0]": ("a", GOOD), "texts[1]": ("b", GOOD),
        "range.Low": (0.0, GOOD), "range.High": (1.0, GOOD), "bytes": ("YWJj", GOOD), "infinite": (None, OUT_OF_RANGE),
        "value": (1.0, GOOD), "text": ("x", GOOD),
    }  # fmt: skip
    assert source.status.counters["unkept"] == source.status.counters["undecodable"] == 0
    server.ask("set", name="value", type="Double", value=2.0, status="UncertainLastUsableValue")
    server.ask("set", name="value", type="Double", value=3.0, status="BadSensorFailure")
    server.ask("set", name="text", type="String", value="y", status="BadSensorFailure")
    server.ask("set", name="array", type="Double", value=[7.0, 8.0, 9.0], status="BadSensorFailure")
    wait_until(lambda: len(sink.readings()) == 21, what="the statuses")
    assert [r[2:] for r in sink.readings("value")] == [(1.0, GOOD), (2.0, 0x40900000), (None, BAD_SENSOR)]
    assert [r[2:] for r in sink.readings("text")] == [("x", GOOD), (None, BAD_SENSOR)]
    assert sink.readings("array[2]")[-1][2:] == (None, BAD_SENSOR)
    assert {r.time for r in sink.readings("value")} == {t for _, t, _, _ in server.produced("value")}


@pytest.mark.parametrize("security", ["none", "Basic256Sha256/SignAndEncrypt", "Aes256_Sha256_RsaPss/SignAndEncrypt"])
def test_a_fast_counter_arrives_exactly_once(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, security: Any
) -> None:
    names = [f"v{i}" for i in range(50)]
    server = shared({n: {"type": "Double", "value": 0} for n in names})
    source = run_source(table(server, names, security=security), sink)
    wait_until(lambda: source.status.signals == 50, what="all items created")
    server.ask("burst", names=names, rounds=100, every=5, type="Double")
    expected = Counter((n, t, float(v)) for n, t, v, _ in server.produced())
    wait_until(lambda: len(sink.readings()) >= len(expected), what="5,050 readings")
    got = Counter((r.name, r.time, r.value) for r in sink.readings())
    assert got == expected
    assert max(got.values()) == 1
    wait_until(lambda: not server.unacknowledged(source), what="all acknowledged")
    counters = source.status.counters
    assert counters["gaps"] == counters["undecodable"] == counters["unkept"] == 0
    assert not sink.overflow


def test_a_missing_node_does_not_stop_the_others(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"a": {"type": "Double", "value": 1.5}})
    names = ["a", "later", {"name": "elsewhere", "node": "nsu=urn:nobody;s=x"}]
    source = run_source(table(server, names), sink)
    wait_until(lambda: sink.readings("a"), what="the good node")
    wait_until(lambda: source.status.missing, what="the missing ones are reported")
    missing = source.status.missing
    assert "BadNodeIdUnknown" in missing["cnc-07/later"]
    assert "urn:nobody" in missing["cnc-07/elsewhere"]
    assert source.status.connected
    server.ask("add", name="later", type="Double", value=2.5)
    wait_until(lambda: sink.readings("later"), what="the node that came later")
    wait_until(lambda: list(source.status.missing) == ["cnc-07/elsewhere"])


def test_a_queue_that_overflows_is_counted(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({"a": {"type": "Double", "value": 0}})
    source = run_source(table(server, ["a"], interval="500ms", queue=2), sink)
    wait_until(lambda: source.status.signals == 1 and sink.readings("a"))
    for i in range(1, 20):
        server.ask("set", name="a", type="Double", value=i)
    wait_until(lambda: any(r.value == 19 for r in sink.readings("a")), what="the newest value")
    assert sum(sink.overflow.values()) >= 1
    assert any(r.status & 0x480 == 0x480 and r.value is not None for r in sink.readings("a"))


def test_too_many_signals_are_refused_and_counted(
    shared: Any, new_sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    sink = new_sink(max_series=2)
    server = shared({"a": {"type": "Double", "value": [1.0, 2.0, 3.0]}, "b": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a", "b"]), sink)
    wait_until(lambda: source.status.counters["series_refused"] == 2)
    assert [r.name for r in sink.readings()] == ["a[0]", "a[1]"]


def test_a_user_name_is_needed_and_used(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, tmp_path: Any
) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}}, anonymous=False)
    refused = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: "user" in refused.status.error, what="the refusal in words")
    refused.stop()
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    run_source(table(server, ["a"], security="best", username="reader", password_file=str(password)), sink)
    wait_until(lambda: sink.readings("a"))


def test_small_servers_get_small_requests(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    names = [f"v{i}" for i in range(25)]
    server = interop(variables={n: {"type": "Double", "value": 0} for n in names}, itemsPerCall=10)
    source = run_source(table(server, names), sink)
    wait_until(lambda: len(sink.readings()) == 25)
    assert source.status.signals == 25
