"""As Klipper says it, through the `[mqtt]` section of Moonraker.

Source: github.com/Arksine/moonraker (docs/configuration.md, "mqtt"). Topics below the instance's name; a status says
what changed; `eventtime` is seconds since boot, so a reader's clock decides the time.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.machines import Reading
from simulators.protocols.dialects.base import Dialect, Message, by_time, is_bad


class Moonraker(Dialect):
    """See the module."""

    told = frozenset({"nozzle", "bed", "chamber", "layer", "progress", "job", "filament_runout"})

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.will = Message(f"{self.machine}/moonraker/status", b'{"server":"offline"}', retain=True)
        self._boot = 0

    def hello(self, now: int) -> list[Message]:
        """As in `Dialect`."""
        self._boot = self._boot or now
        ready = {
            "webhooks": {"state": "ready", "state_message": "Printer is ready"},
            "print_stats": {"state": "standby"},
        }
        return [
            Message(f"{self.machine}/moonraker/status", b'{"server":"online"}', retain=True),
            self._status(ready, now, ()),
        ]

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """As in `Dialect`."""
        messages = []
        for group in by_time([r for r in readings if not is_bad(r)]):
            status: dict[str, dict[str, Any]] = {}
            told = []
            for reading in group:
                found = _field(reading)
                if found:
                    status.setdefault(found[0], {}).update(found[1])
                    told.append(_told(reading))
            if status:
                messages.append(self._status(status, group[0].ts, tuple(told)))
        return messages

    def _status(self, status: dict[str, dict[str, Any]], ts: int, told: tuple[Reading, ...]) -> Message:
        body = {"eventtime": round((ts - self._boot) / 1e9, 6), "status": status}
        return Message(f"{self.machine}/klipper/status", msgspec.json.encode(body), 1, told=told)


def _told(reading: Reading) -> Reading:
    if reading.signal == "filament":
        return reading._replace(signal="filament_runout", timed=False)
    return reading._replace(timed=False)


def _field(reading: Reading) -> tuple[str, dict[str, Any]] | None:
    """The object of Klipper that has a reading, and its field."""
    value = reading.value
    if reading.signal == "job":
        if value:
            return "print_stats", {"state": "printing", "filename": value}
        return "print_stats", {"state": "complete"}
    if isinstance(value, str):
        return None
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "nozzle": ("extruder", {"temperature": value}),
        "bed": ("heater_bed", {"temperature": value}),
        "chamber": ("temperature_sensor chamber", {"temperature": value}),
        "progress": ("display_status", {"progress": value / 100.0}),
        "layer": ("print_stats", {"info": {"current_layer": int(value), "total_layer": 20}}),
        "filament": ("filament_switch_sensor runout", {"filament_detected": value > 0.0}),
    }
    return fields.get(reading.signal)
