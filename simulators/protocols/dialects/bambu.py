"""As a Bambu Lab printer says it: reports of what changed, and the whole when it is asked.

Source: github.com/Doridian/OpenBambuAPI (mqtt.md). Topic `device/<serial>/report`, QoS 0; reports have no time, so a
reader's clock decides it. The serial number is the machine's name. A real printer is its own broker, with TLS.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from simulators.machines import Reading
from simulators.protocols.dialects.base import Dialect, Message, by_time, is_bad

_FIELDS = {"nozzle": "nozzle_temper", "bed": "bed_temper", "chamber": "chamber_temper"}


class Bambu(Dialect):
    """See the module."""

    told = frozenset({"nozzle", "bed", "chamber", "layer", "progress", "job"})

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.requests = (f"device/{self.machine}/request",)
        self._whole: dict[str, Any] = {
            "gcode_state": "IDLE",
            "subtask_name": "",
            "total_layer_num": 20,
            "print_error": 0,
        }
        self._sequence = 0

    def hello(self, now: int) -> list[Message]:
        """As in `Dialect`."""
        del now
        return [self._report(dict(self._whole), 0, ())]

    def encode(self, readings: Sequence[Reading]) -> list[Message]:
        """As in `Dialect`."""
        messages = []
        for group in by_time([r for r in readings if not is_bad(r)]):
            changed: dict[str, Any] = {}
            told = []
            for reading in group:
                fields = _fields(reading)
                if fields:
                    changed.update(fields)
                    whole = reading.signal == "progress"
                    told.append(reading._replace(timed=False, value=fields["mc_percent"] if whole else reading.value))
            if changed:
                self._whole.update(changed)
                messages.append(self._report(changed, 1, tuple(told)))
        return messages

    def answer(self, topic: str, payload: bytes, now: int) -> list[Message]:
        """As in `Dialect`: the whole, to `pushall`."""
        del topic, now
        try:
            request = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            return []
        pushing = request.get("pushing") if isinstance(request, dict) else None
        if isinstance(pushing, dict) and pushing.get("command") == "pushall":
            return [self._report(dict(self._whole), 0, ())]
        return []

    def _report(self, fields: dict[str, Any], kind: int, told: tuple[Reading, ...]) -> Message:
        self._sequence += 1
        body = {"print": {**fields, "command": "push_status", "msg": kind, "sequence_id": str(self._sequence)}}
        return Message(f"device/{self.machine}/report", msgspec.json.encode(body), 0, told=told)


def _fields(reading: Reading) -> dict[str, Any]:
    value = reading.value
    if reading.signal == "job":
        if value:
            return {"gcode_state": "RUNNING", "subtask_name": value, "gcode_file": value}
        return {"gcode_state": "FINISH"}
    if isinstance(value, str):
        return {}
    if reading.signal in _FIELDS:
        return {_FIELDS[reading.signal]: value}
    if reading.signal == "progress":
        return {"mc_percent": float(round(value))}
    return {"layer_num": int(value)} if reading.signal == "layer" else {}
