"""A metric of an edge node: its type, its newest value, and both as bytes."""

import math
from functools import lru_cache

import msgspec

from fieldlab.model.status import BAD
from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug import encode as e
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.payload import Metric

Scalar = float | int | str | None
_MS = 1_000_000
_EXACT = 2.0**63
_GOOD, _STALE, _BAD = 192, 500, 0  # of the property Quality (Sparkplug 3.0.0, 6.4.13)
STATUS = "StatusCode"
"""The property that has the whole OPC UA StatusCode, where `Quality` has three."""


def type_of(value: Scalar) -> int:
    """The type of a metric with such a value: String, Int64 for what a float cannot hold exactly, else Double."""
    if isinstance(value, str):
        return t.STRING
    return t.INT64 if isinstance(value, int) else t.DOUBLE


@lru_cache(100_000)
def _alias(alias: int) -> bytes:
    return e.number(2, alias)


@lru_cache(1_000)  # what is read together often has one time
def _at(ms: int) -> bytes:
    return e.number(3, ms)


@lru_cache
def _kind(datatype: int, historical: bool) -> bytes:
    return e.number(4, datatype) + (e.number(5, 1) if historical else b"")


def value_of(metric: Metric) -> Scalar:
    """What `Known.metric` made a metric of: its value, or None."""
    raw: Scalar = None if metric.null else metric.value.raw
    return raw - 2**64 if metric.value.field == p.LONG and isinstance(raw, int) and raw >= 2**63 else raw


def suits(datatype: int, value: Scalar) -> bool:
    """Whether a metric of this type can have that value; whole numbers suit an Int64."""
    if value is None or type_of(value) == datatype:
        return True
    return datatype == t.INT64 and isinstance(value, float) and value.is_integer() and abs(value) < _EXACT


class Known(msgspec.Struct, array_like=True):
    """What is known of a metric.

    Attributes:
        datatype: its type in the birth certificate.
        unit: its unit.
        time: of its newest reading, ns.
        value: its newest value.
        status: the OPC UA StatusCode of that reading.
        live: whether a reading came in this process.
    """

    datatype: int
    unit: str
    time: int
    value: Scalar
    status: int
    live: bool = False

    def birth(self, name: str, alias: int) -> bytes:
        """The metric in a birth certificate, with its newest reading."""
        found: dict[str, float | int | str | None] = {"engUnit": self.unit} if self.unit else {}
        found |= quality(self.status)
        head = (
            e.chunk(1, name.encode()) + e.number(2, alias) + e.number(3, self.time // _MS) + e.number(4, self.datatype)
        )
        properties = e.chunk(9, e.properties(found)) if found else b""
        return head + self._null(self.value, self.status) + properties + self._held(self.value, self.status)

    def metric(self, alias: int, time: int, value: Scalar, status: int, *, historical: bool) -> bytes:
        """A reading in a message of data. Its type is said again: npm's decoder gives no value without."""
        kind = _kind(self.datatype, historical)
        if status == 0 and self.datatype == t.DOUBLE and type(value) is float and value == value:  # noqa: PLR0124  NaN is not itself
            return _alias(alias) + _at(time // _MS) + kind + e.double(p.DOUBLE, value)
        head = _alias(alias) + _at(time // _MS) + kind
        properties = e.chunk(9, e.properties(quality(status))) if status else b""
        return head + self._null(value, status) + properties + self._held(value, status)

    def _null(self, value: Scalar, status: int) -> bytes:
        return b"\x38\x01" if self._absent(value, status) else b""

    def _held(self, value: Scalar, status: int) -> bytes:
        if self._absent(value, status) or value is None:
            return b""
        if self.datatype == t.STRING:
            return e.chunk(p.STRING, str(value).encode("utf-8", "replace"))
        return e.number(p.LONG, int(value)) if self.datatype == t.INT64 else e.double(p.DOUBLE, float(value))

    def _absent(self, value: Scalar, status: int) -> bool:
        """Whether there is nothing to say: also where the newest value is of an older type."""
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        return bool(status & BAD) or missing or not suits(self.datatype, value)


def quality(status: int) -> dict[str, float | int | str | None]:
    """The properties of a StatusCode; none for Good."""
    if not status:
        return {}
    coarse = _BAD if status & BAD else _STALE if status & 0x40000000 else _GOOD
    return {"Quality": coarse, STATUS: status}
