"""Every type, from npm's encoder; the arrays of 3.0, which it cannot write, from numbers that are packed here."""

import contextlib
import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.sources.mqtt.sparkplug.reading import quality
from edge.sources.mqtt.sparkplug.rebirths import request
from edge.sources.mqtt.sparkplug.values import Mismatch, flatten, scalar
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.datatypes import NAMES
from fieldlab.sparkplug.payload import decode


def long(value: int) -> dict[str, str]:
    return {"$long": str(value)}


SCALARS = [
    ("Int8", -128, -128),
    ("Int8", 127, 127),
    ("Int16", -32768, -32768),
    ("Int32", -(2**31), -(2**31)),
    ("Int64", long(-(2**63)), -(2**63)),
    ("Int64", long(2**53 + 1), 2**53 + 1),
    ("UInt8", 255, 255),
    ("UInt16", 65535, 65535),
    ("UInt32", 2**32 - 1, 2**32 - 1),
    ("UInt64", long(2**64 - 1), 2**64 - 1),
    ("Float", 1.5, 1.5),
    ("Double", 0.1, 0.1),
    ("Boolean", True, True),
    ("Boolean", False, False),
    ("String", "größer", "größer"),
    ("Text", "", ""),
    ("UUID", str(uuid.UUID(int=7)), str(uuid.UUID(int=7))),
    ("DateTime", long(1_763_900_000_123), 1_763_900_000.123),
]


@pytest.mark.parametrize(("name", "value", "expected"), SCALARS)
def test_scalars_from_npm(encode: Any, name: str, value: Any, expected: Any) -> None:
    made = decode(encode({"timestamp": 1, "seq": 0, "metrics": [{"name": "m", "type": name, "value": value}]}))
    (metric,) = made.metrics
    assert NAMES[metric.datatype] == name
    ((suffix, found),) = flatten(made.data, metric.datatype, metric.value)
    assert suffix == ""
    assert found == expected
    assert type(found) is type(expected)


def test_everything_about_a_metric_from_npm(encode: Any) -> None:
    made = decode(
        encode(
            {
                "timestamp": long(1_763_900_000_000),
                "seq": 255,
                "uuid": "x",
                "body": {"$bytes": [1, 2]},
                "metrics": [
                    {
                        "name": "a/b",
                        "alias": 3,
                        "timestamp": long(1_763_900_000_001),
                        "type": "Int32",
                        "value": None,
                        "isHistorical": True,
                        "isTransient": True,
                        "metadata": {"isMultiPart": False, "contentType": "x", "size": 3, "seq": 0, "md5": "m"},
                        "properties": {
                            "Quality": {"type": "Int32", "value": 500},
                            "engUnit": {"type": "String", "value": "mm"},
                            "low": {"type": "Int32", "value": -5},
                            "none": {"type": "Double", "value": None},
                            "set": {"type": "PropertySet", "value": {"x": {"type": "Double", "value": 1.5}}},
                            "sets": {"type": "PropertySetList", "value": [{"x": {"type": "Boolean", "value": True}}]},
                        },
                    }
                ],
            }
        )
    )
    assert (made.time, made.seq) == (1_763_900_000_000, 255)
    (metric,) = made.metrics
    assert (metric.name, metric.alias, metric.time) == ("a/b", 3, 1_763_900_000_001)
    assert (metric.historical, metric.transient, metric.null) == (True, True, True)
    known = {"Quality": 500, "engUnit": "mm", "low": -5, "none": None, "set": None, "sets": None}
    assert metric.properties == known


def test_datasets_and_templates_from_npm(encode: Any) -> None:
    dataset = {
        "numOfColumns": 3,
        "columns": ["n", "text", "f"],
        "types": ["Int64", "String", "Double"],
        "rows": [[long(-(2**53) - 1), "x", 1.5], [2, "y", 2.5]],
    }
    template = {
        "isDefinition": False,
        "templateRef": "Motor",
        "version": "1",
        "parameters": [{"name": "p", "type": "Int32", "value": 1}],
        "metrics": [
            {"name": "rpm", "type": "Int32", "value": -1},
            {"name": "off", "type": "Boolean", "value": None},
            {"name": "table", "type": "DataSet", "value": dataset},
            {"name": "inner", "type": "Template", "value": {"metrics": [{"name": "t", "type": "Float", "value": 2.5}]}},
        ],
    }
    definition = {"isDefinition": True, "metrics": [{"name": "rpm", "type": "Int32", "value": 0}]}
    metrics = [
        {"name": "d", "type": "DataSet", "value": dataset},
        {"name": "t", "type": "Template", "value": template},
        {"name": "b", "type": "Bytes", "value": {"$bytes": [1]}},
        {"name": "f", "type": "File", "value": {"$bytes": [1]}},
        {"name": "_types_/Motor", "type": "Template", "value": definition},
    ]
    made = decode(encode({"timestamp": 1, "metrics": metrics}))
    found = [flatten(made.data, m.datatype, m.value) for m in made.metrics]
    cells = [
        ("[0].n", -(2**53) - 1),
        ("[0].text", "x"),
        ("[0].f", 1.5),
        ("[1].n", 2),
        ("[1].text", "y"),
        ("[1].f", 2.5),
    ]
    assert found[0] == cells
    below = [(f".table{suffix}", value) for suffix, value in cells]
    assert found[1] == [(".rpm", -1), (".off", None), *below, (".inner.t", 2.5)]
    assert found[2:] == [[], [], []]


ARRAYS = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d"}


@given(st.sampled_from(sorted(ARRAYS)), st.data())
def test_arrays_of_numbers(datatype: int, data: Any) -> None:
    code = ARRAYS[datatype]
    bits = 8 * struct.calcsize(code)
    if code in "fd":
        numbers = st.floats(width=32 if code == "f" else 64, allow_nan=False)
    else:
        low = -(2 ** (bits - 1)) if code.islower() else 0
        numbers = st.integers(low, low + 2**bits - 1)
    values = data.draw(st.lists(numbers, max_size=20))
    raw = struct.pack(f"<{len(values)}{code}", *values)
    found = flatten(b"", datatype, p.Value(p.BYTES, raw))
    assert found == [(f"[{i}]", value) for i, value in enumerate(values)]
    if raw and len(raw[:-1]) % struct.calcsize(code):
        with pytest.raises(Mismatch):
            flatten(b"", datatype, p.Value(p.BYTES, raw[:-1]))


def test_the_other_arrays() -> None:
    # The example of the specification: 12 booleans.
    raw = bytes([12, 0, 0, 0, 0x34, 0xD0])
    bits = [False, False, True, True, False, True, False, False, True, True, False, True]
    assert [value for _, value in flatten(b"", 32, p.Value(p.BYTES, raw))] == bits
    assert flatten(b"", 33, p.Value(p.BYTES, b"ABC\0hello\0")) == [("[0]", "ABC"), ("[1]", "hello")]
    times = struct.pack("<2q", 1256102875335, -1)
    assert flatten(b"", 34, p.Value(p.BYTES, times)) == [("[0]", 1256102875.335), ("[1]", -0.001)]
    for datatype, wrong in ((32, b""), (32, bytes([9, 0, 0, 0, 1])), (33, b"x"), (33, b"\xff\0"), (34, b"1")):
        with pytest.raises(Mismatch):
            flatten(b"", datatype, p.Value(p.BYTES, wrong))


@given(st.integers(1, 8), st.integers(0, 2**64 - 1))
def test_whole_numbers_fit_their_type_or_are_refused(datatype: int, raw: int) -> None:
    bits = (8, 16, 32, 64)[(datatype - 1) % 4]
    low = -(2 ** (bits - 1)) if datatype <= 4 else 0
    try:
        value = scalar(datatype, p.Value(p.LONG, raw))
    except Mismatch:
        assert raw >= 2**bits
    else:
        assert isinstance(value, int)
        assert low <= value < low + 2**bits
        assert (value - raw) % 2**bits == 0


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_negative_numbers_however_long(bits: int) -> None:
    datatype = {8: 1, 16: 2, 32: 3, 64: 4}[bits]
    for width in (bits, 32, 64):
        if width >= bits:
            assert scalar(datatype, p.Value(p.LONG, -3 & 2**width - 1)) == -3


def test_a_value_of_another_type_is_a_mismatch() -> None:
    for datatype, value in (
        (3, p.Value(p.STRING, "1")),
        (9, p.Value(p.INT, 1)),
        (12, p.Value(p.INT, 1)),
        (3, p.NOTHING),
    ):
        with pytest.raises(Mismatch, match=NAMES[datatype]):
            flatten(b"", datatype, value)
    with pytest.raises(Mismatch, match="unknown type 99"):
        flatten(b"", 99, p.Value(p.INT, 1))


def test_qualities() -> None:
    told = {192: 0, 0: 0x80000000, 500: 0x40900000, 64: 0x40000000, 216: 0, 600: 0x80000000}
    assert {each: quality({"Quality": each}) for each in told} == told
    assert quality({}) == 0


def test_our_request_is_a_payload() -> None:
    made = decode(request(1_763_900_000_123))
    (metric,) = made.metrics
    assert (made.time, made.seq) == (1_763_900_000_123, None)
    assert (metric.name, metric.time, metric.datatype) == ("Node Control/Rebirth", 1_763_900_000_123, 11)
    assert scalar(11, metric.value) is True


@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_a_reason(data: bytes) -> None:
    with contextlib.suppress(ValueError):  # anything else is a defect
        made = decode(data)
        for metric in made.metrics:
            with contextlib.suppress(ValueError):
                flatten(data, metric.datatype, metric.value)
