"""As an edge node of Sparkplug B says it: births with names and types, data by alias, a death as the last will.

Source: Eclipse Sparkplug 3.0.0, chapters 5 and 6, and sparkplug_b.proto of Eclipse Tahu for the field numbers. The edge
node is `<line>-<machine>` in the group `<area>`, with one device, the machine. Times are whole milliseconds. It hears
`Node Control/Rebirth`, and then says its births anew.
"""

import struct
from collections.abc import Sequence

from simulators.machines import Reading, Signal
from simulators.protocols.dialects.base import Dialect, Message, by_time, is_bad

_INT64, _DOUBLE, _BOOLEAN, _STRING = 4, 10, 11, 12  # data types
_REBIRTH = "Node Control/Rebirth"


class Sparkplug(Dialect):
    """See the module.

    Args:
        place: `site/area/line/machine`.
        signals: of the machine.
    """

    def __init__(self, place: str, signals: Sequence[Signal]) -> None:
        super().__init__(place)
        _, group, line, _ = place.split("/")
        self._node, self._device = f"spBv1.0/{group}/{{}}/{line}-{self.machine}", self.machine
        self._aliases = {s.name: i for i, s in enumerate(signals, 1)}
        self._texts = {s.name for s in signals if s.kind in ("text", "state")}
        self._units = {s.name: s.unit for s in signals}
        self._last: dict[str, Reading] = {}
        self._seq = self._bd = 0
        self.requests = (self._node.format("NCMD"),)
        self.will = Message(self._node.format("NDEATH"), self._death(0))

    def hello(self, now: int) -> list[Message]:
        """As in `Dialect`: both births."""
        self._seq = 0
        ms = now // 1_000_000
        born = [_metric(ms, _INT64, self._bd, name="bdSeq"), _metric(ms, _BOOLEAN, False, name=_REBIRTH)]
        node = Message(self._node.format("NBIRTH"), _payload(ms, born, self._next()), 0)
        metrics = []
        for name, alias in self._aliases.items():
            last = self._last.get(name)
            kind = _STRING if name in self._texts else _DOUBLE
            at = last.ts // 1_000_000 if last else ms
            metrics.append(
                _metric(at, kind, last.value if last else None, name=name, alias=alias, unit=self._units[name])
            )
        device = Message(f"{self._node.format('DBIRTH')}/{self._device}", _payload(ms, metrics, self._next()), 0)
        return [node, device]

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """As in `Dialect`: a message of data for each time."""
        messages = []
        for group in by_time(readings):
            told = [
                r._replace(ts=r.ts - r.ts % 1_000_000) for r in group if r.signal in self._aliases and not is_bad(r)
            ]
            if not told:
                continue
            ms = told[0].ts // 1_000_000
            metrics = []
            for reading in told:
                self._last[reading.signal] = reading
                kind = _STRING if reading.signal in self._texts else _DOUBLE
                metrics.append(_metric(ms, kind, reading.value, alias=self._aliases[reading.signal]))
            topic = f"{self._node.format('DDATA')}/{self._device}"
            messages.append(Message(topic, _payload(ms, metrics, self._next()), 0, told=tuple(told)))
        return messages

    def answer(self, topic: str, payload: bytes, now: int) -> list[Message]:
        """As in `Dialect`: births, to a rebirth."""
        return self.hello(now) if topic == self.requests[0] and _REBIRTH.encode() in payload else []

    def _death(self, ms: int) -> bytes:
        return _payload(ms, [_metric(ms, _INT64, self._bd, name="bdSeq")], None)

    def _next(self) -> int:
        seq = self._seq
        self._seq = (self._seq + 1) % 256
        return seq


def _payload(ms: int, metrics: Sequence[bytes], seq: int | None) -> bytes:
    body = _number(1, ms) + b"".join(_bytes(2, metric) for metric in metrics)
    return body if seq is None else body + _number(3, seq)


def _metric(
    ms: int, kind: int, value: float | str | bool | None, *, name: str = "", alias: int | None = None, unit: str = ""
) -> bytes:
    body = _bytes(1, name.encode()) if name else b""
    if alias is not None:
        body += _number(2, alias)
    body += _number(3, ms) + _number(4, kind)
    if unit:
        key = _bytes(1, b"engUnit")
        text = _bytes(2, _number(1, _STRING) + _bytes(8, unit.encode()))
        body += _bytes(9, key + text)
    if value is None:
        return body + _number(7, 1)
    if isinstance(value, str):
        return body + _bytes(15, value.encode())
    if kind == _DOUBLE:
        return body + _tag(13, 1) + struct.pack("<d", value)
    return body + _number(14 if kind == _BOOLEAN else 11, int(value))


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
