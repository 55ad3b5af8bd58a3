"""As a driverless vehicle says it: VDA 5050, version 2.0.

Source: github.com/VDA5050/VDA5050 (json_schemas/state.schema, connection.schema). Topics below
`uagv/v2/fieldlab/<machine>`; a state tells everything, at QoS 0, with a time in whole milliseconds and a number that
counts up. A part's id is the order's.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.machines import Reading
from simulators.protocols.dialects.base import Dialect, Message, by_time, is_bad

_NUMBERS = {
    "x": ("agvPosition", "x"),
    "y": ("agvPosition", "y"),
    "theta": ("agvPosition", "theta"),
    "localization_score": ("agvPosition", "localizationScore"),
    "deviation": ("agvPosition", "deviationRange"),
    "vx": ("velocity", "vx"),
    "battery": ("batteryState", "batteryCharge"),
    "battery_voltage": ("batteryState", "batteryVoltage"),
}
_MAKER = "fieldlab"


class Vda5050(Dialect):
    """See the module."""

    told = frozenset({*_NUMBERS, "order_id"})

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._root = f"uagv/v2/{_MAKER}/{self.machine}"
        self._known: dict[str, float] = {"x": 0.0, "y": 0.0, "theta": 0.0, "battery": 95.0}
        self._order, self._working, self._number, self._greeted = "", False, 0, 0
        self.will = Message(f"{self._root}/connection", self._connection("CONNECTIONBROKEN", 0), retain=True)

    def hello(self, now: int) -> list[Message]:
        """As in `Dialect`."""
        self._greeted += 1
        return [Message(f"{self._root}/connection", self._connection("ONLINE", now), 1, retain=True)]

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """As in `Dialect`."""
        messages = []
        for group in by_time([r for r in readings if not is_bad(r)]):
            for reading in group:
                if reading.signal == "part_id":
                    self._order, self._working = str(reading.value) or self._order, bool(reading.value)
                elif reading.signal in _NUMBERS:
                    self._known[reading.signal] = float(reading.value)
            messages.append(self._state(group[0].ts))
        return messages

    def _state(self, ts: int) -> Message:
        ts -= ts % 1_000_000
        self._number += 1
        body: dict[str, Any] = {
            **self._header(self._number, ts),
            "orderId": self._order,
            "orderUpdateId": 0,
            "lastNodeId": "dock",
            "lastNodeSequenceId": 0,
            "nodeStates": [{"nodeId": "goal", "sequenceId": 2, "released": True}] if self._working else [],
            "edgeStates": [],
            "driving": self._known.get("vx", 0.0) > 0.0,
            "operatingMode": "AUTOMATIC",
            "actionStates": [],
            "errors": [],
            "loads": [],
            "safetyState": {"eStop": "NONE", "fieldViolation": False},
            "agvPosition": {"mapId": "hall", "positionInitialized": True},
            "batteryState": {"charging": False},
        }
        for signal, value in self._known.items():
            where, key = _NUMBERS[signal]
            body.setdefault(where, {})[key] = value
        told = [Reading(signal, ts, value) for signal, value in self._known.items()]
        told.append(Reading("order_id", ts, self._order))
        return Message(f"{self._root}/state", msgspec.json.encode(body), 0, told=tuple(told))

    def _connection(self, state: str, now: int) -> bytes:
        return msgspec.json.encode({**self._header(self._greeted, now), "connectionState": state})

    def _header(self, number: int, ts: int) -> dict[str, Any]:
        stamp = dt.datetime.fromtimestamp(ts // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return {
            "headerId": number,
            "timestamp": f"{stamp}.{ts // 1_000_000 % 1000:03d}Z",
            "version": "2.0.0",
            "manufacturer": _MAKER,
            "serialNumber": self.machine,
        }
