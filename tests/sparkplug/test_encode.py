"""What our encoder writes, our decoder and npm's read as it was meant."""

import base64
import json
import math
import struct
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.encode import encode
from fieldlab.sparkplug.payload import Metric, Payload, Value, decode

INTEROP = Path(__file__).parents[1] / "interop"
MS = st.integers(0, 2**53)
FLOATS = st.floats(width=32).filter(lambda f: not math.isnan(f))
DOUBLES = st.floats(allow_nan=False)
TEXT = st.text(max_size=40)


def typed(datatype: int, field: int, raw: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[int, Value]]:
    return raw.map(lambda held: (datatype, Value(field, held)))


HELD = st.one_of(
    typed(t.INT32, p.INT, st.integers(0, 2**32 - 1)),
    typed(t.UINT32, p.INT, st.integers(0, 2**32 - 1)),
    typed(t.INT64, p.LONG, st.integers(0, 2**64 - 1)),
    typed(t.UINT64, p.LONG, st.integers(0, 2**64 - 1)),
    typed(t.DATETIME, p.LONG, MS),
    typed(t.FLOAT, p.FLOAT, FLOATS),
    typed(t.DOUBLE, p.DOUBLE, DOUBLES),
    typed(t.BOOLEAN, p.BOOLEAN, st.booleans()),
    typed(t.STRING, p.STRING, TEXT),
    typed(t.BYTES, p.BYTES, st.binary(max_size=20)),
)
PROPERTIES = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.one_of(st.integers(-(2**31), 2**32 - 1), DOUBLES, TEXT, st.booleans(), st.none()),
    max_size=3,
)


@st.composite
def metrics(draw: st.DrawFn) -> Metric:
    datatype, value = draw(HELD)
    null = draw(st.booleans())
    return Metric(
        draw(TEXT),
        draw(st.none() | st.integers(0, 2**64 - 1)),
        draw(st.none() | MS),
        datatype,
        draw(st.booleans()),
        draw(st.booleans()),
        null,
        p.NOTHING if null else value,
        draw(PROPERTIES),
    )


PAYLOADS = st.builds(
    lambda time, seq, found: Payload(time, seq, tuple(found), b""),
    st.none() | MS,
    st.none() | st.integers(0, 255),
    st.lists(metrics(), max_size=5),
)


def bare(payload: Payload) -> Payload:
    return Payload(payload.time, payload.seq, payload.metrics, b"")


@settings(max_examples=300, deadline=None)
@given(payload=PAYLOADS)
def test_our_decoder_reads_it_back(payload: Payload) -> None:
    assert bare(decode(encode(payload))) == payload


def test_a_payload_of_datasets_is_written_as_it_was_read() -> None:
    inner = b"\x08\x01\x12\x01a\x18\x0a"  # a DataSet of one column and no rows
    span = Metric("d", None, None, t.DATASET, False, False, False, Value(p.DATASET, (0, len(inner))), {})
    read = decode(encode(Payload(1, 2, (span,), inner)))
    assert decode(encode(read)) == read


def npm(node: str, payloads: list[bytes]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [node, "sparkplug_decode.js"],
        cwd=INTEROP,
        input=b"\n".join(map(base64.b64encode, payloads)) + b"\n",
        capture_output=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def long(found: Any) -> Any:
    return int(found["$long"]) if isinstance(found, dict) and "$long" in found else found


def in_npms_words(metric: Metric) -> dict[str, Any]:
    """What npm's decoder should say of a metric."""
    field, raw = metric.value.field, metric.value.raw
    value: Any = raw
    if metric.datatype == t.INT32 and field:
        value = struct.unpack("<i", struct.pack("<I", raw))[0]
    elif isinstance(raw, bytes):
        value = {"$bytes": list(raw)}
    elif isinstance(raw, float) and math.isinf(raw):
        value = {"$number": "Infinity" if raw > 0 else "-Infinity"}
    return {"name": metric.name, "alias": metric.alias, "time": metric.time, "value": value}


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(payloads=st.lists(PAYLOADS, min_size=30, max_size=60))
def test_npms_decoder_reads_it(sparkplug_payload: str, payloads: list[Payload]) -> None:
    """But for UInt32, which npm's wants in long_value, and we write where Sparkplug 3.0.0 (6.4.16) wants it.

    It takes negative numbers of 64 bits for positive ones.
    """
    for read, payload in zip(npm(sparkplug_payload, list(map(encode, payloads))), payloads, strict=True):
        assert long(read.get("timestamp")) == payload.time
        assert long(read.get("seq")) == payload.seq
        assert len(read["metrics"]) == len(payload.metrics)
        for found, metric in zip(read["metrics"], payload.metrics, strict=True):
            expected = in_npms_words(metric)
            assert found.get("name") == expected["name"] or not metric.name
            assert long(found.get("alias")) == expected["alias"]
            assert long(found.get("timestamp")) == expected["time"]
            value = long(found.get("value"))
            if isinstance(expected["value"], float) and isinstance(value, int):
                value = float(value)  # JavaScript writes whole numbers without a point
            assert (
                metric.null
                or metric.datatype == t.UINT32
                or value == expected["value"]
                or (value is None and not metric.value.raw)
            )
            assert bool(found.get("isHistorical")) == metric.historical
            assert bool(found.get("isTransient")) == metric.transient
            assert {
                k: long(v["value"]) for k, v in found.get("properties", {}).items()
            }.keys() == metric.properties.keys()
