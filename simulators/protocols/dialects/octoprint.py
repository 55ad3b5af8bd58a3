"""As OctoPrint says it, with its plugin OctoPrint-MQTT.

Source: github.com/OctoPrint/OctoPrint-MQTT (README.md) and docs.octoprint.org, Events. Topics below
`octoPrint/<machine>`; all but the last will at QoS 0; `_timestamp` in whole seconds.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.machines import Reading
from simulators.protocols.dialects.base import Dialect, Message, is_bad

_TARGETS = {"nozzle": ("tool0", 210.0), "bed": ("bed", 60.0), "chamber": ("chamber", 0.0)}
_FILE = {"name": "shaver-cap.gcode", "path": "shaver-cap.gcode", "origin": "local", "size": 482133}


class OctoPrint(Dialect):
    """See the module."""

    told = frozenset({"nozzle", "bed", "chamber", "layer", "progress", "job"})

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._root = f"octoPrint/{self.machine}"
        self.will = Message(f"{self._root}/mqtt", b"disconnected", retain=True)

    def hello(self, now: int) -> list[Message]:
        """As in `Dialect`."""
        second = now // 1_000_000_000
        return [
            Message(f"{self._root}/mqtt", b"connected", retain=True),
            self._event("Connected", second, {"port": "/dev/ttyACM0", "baudrate": 115200}),
        ]

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """As in `Dialect`."""
        return [message for reading in readings if not is_bad(reading) for message in self._one(reading)]

    def _one(self, reading: Reading) -> list[Message]:
        second = reading.ts // 1_000_000_000
        told = (reading._replace(ts=second * 1_000_000_000),)
        if reading.signal in _TARGETS:
            heater, target = _TARGETS[reading.signal]
            heat = {"_timestamp": second, "actual": reading.value, "target": target}
            return [self._message(f"temperature/{heater}", heat, told)]
        if reading.signal == "progress":
            body: dict[str, Any] = {
                "_timestamp": second,
                "progress": reading.value,
                "location": "local",
                "path": _FILE["path"],
            }
            return [self._message("progress/printing", body, told)]
        if reading.signal == "layer":
            layer = str(int(float(reading.value)))
            return [
                self._event(
                    "DisplayLayerProgress_layerChanged", second, {"currentLayer": layer, "totalLayer": "20"}, told
                )
            ]
        if reading.signal == "job":
            if reading.value:
                return [self._event("PrintStarted", second, dict(_FILE), told)]
            return [self._event("PrintDone", second, {**_FILE, "time": 60.0}, told)]
        return []

    def _event(self, name: str, second: int, body: dict[str, Any], told: tuple[Reading, ...] = ()) -> Message:
        return self._message(f"event/{name}", {**body, "_event": name, "_timestamp": second}, told)

    def _message(self, path: str, body: dict[str, Any], told: tuple[Reading, ...]) -> Message:
        return Message(f"{self._root}/{path}", msgspec.json.encode(body), 0, told=told)
