"""Moonraker's topics: Klipper's status, whole or split by field, and whether Moonraker is there.

Source: github.com/Arksine/moonraker (docs/configuration.md, moonraker/components/mqtt.py). Klipper sends what changed;
`eventtime` is a clock that starts at boot, so readings have the time of arrival.
"""

from typing import Any, Final

from edge.sources.mqtt.device import Device, DeviceDialect, Quantity, Reading
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.moonraker.objects import POSITION, known
from edge.sources.mqtt.payload import PayloadError
from edge.sources.mqtt.printers import ERROR, FILE, JOB, RUNNING, STATE, STATE_TEXT, job_of, state_number
from edge.sources.mqtt.scalars import document_of, table, time_of

_PRINT: Final = {  # print_stats.state → state
    "standby": "idle",
    "printing": "printing",
    "paused": "paused",
    "complete": "finished",
    "cancelled": "cancelled",
    "error": "failed",
}
_HOST: Final = {"startup": "offline", "shutdown": "error", "error": "error"}  # webhooks.state → state; ready: as above
_KLIPPER = Quantity("klipper", "", "text")


class MoonrakerDialect(DeviceDialect):
    """The format `moonraker`; see `DeviceDialect`."""

    def readings(self, device: Device, path: str, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
        """As in `DeviceDialect`."""
        levels = path.split("/")
        if path == "moonraker/status":
            return _connection(device, payload, arrival, retained=retained)
        if path == "klipper/status":
            status = document_of(payload).get("status")
            if not isinstance(status, dict):
                raise PayloadError("there is no object at 'status'")
        elif levels[:2] == ["klipper", "state"] and len(levels) == 4:
            document = document_of(payload)
            if "value" not in document:
                raise PayloadError("there is nothing at 'value'")
            status = {levels[2]: {levels[3]: document["value"]}}
        else:
            raise Ignored("unmatched")
        time, code = time_of(None, arrival, retained=retained)
        found: list[Reading] = []
        for name, fields in status.items():
            if isinstance(fields, dict):
                self._object(found, name, fields, time, code)
            else:
                self.counters["skipped"] += 1
        self._print(device, found, status, time, code)
        return found

    def _object(self, found: list[Reading], name: str, fields: dict[str, Any], time: int, code: int) -> None:
        """Readings of the fields that stand for themselves."""
        for field, raw in fields.items():
            if (name, field) in _JOINT:
                continue
            if field == "info" and isinstance(raw, dict):
                self._object(found, name, {f"info.{k}": v for k, v in raw.items() if v is not None}, time, code)
                continue
            if raw is None:
                continue
            signal = known(name, field)
            signals = POSITION if (name, field) == ("motion_report", "live_position") else (signal,) if signal else ()
            self.counters["skipped"] += not signals
            for what, convert in signals:
                value = convert(raw)
                if value is None:
                    self.counters["skipped"] += 1
                else:
                    found.append(Reading(what, value, time, code))

    def _print(self, device: Device, found: list[Reading], status: dict[str, Any], time: int, code: int) -> None:
        """State, file, job and error: each depends on several fields, and a message has those that changed."""
        memory = device.memory
        stats, host = table(status.get("print_stats")), table(status.get("webhooks"))
        if isinstance(stats.get("filename"), str):
            memory["file"] = stats["filename"]
            found.append(Reading(FILE, memory["file"], time, code))
        if isinstance(stats.get("state"), str):
            memory["print"] = stats["state"]
        if isinstance(host.get("state"), str):
            memory["host"] = host["state"]
            found.append(Reading(_KLIPPER, memory["host"], time, code))
        for words, fields, key in (("why", stats, "message"), ("host why", host, "state_message")):
            if isinstance(fields.get(key), str):
                memory[words] = fields[key]
        if isinstance(stats.get("message"), str) or "state_message" in host or "state" in host:
            ready = memory.get("host", "ready") == "ready"
            found.append(Reading(ERROR, memory.get("why" if ready else "host why", ""), time, code))
        if not (stats.keys() & {"state", "filename"} or "state" in host):
            return
        state = _HOST.get(memory.get("host", ""), "") or _PRINT.get(memory.get("print", ""), "")
        if not state:
            return
        if "state" in stats or "state" in host:
            found.append(Reading(STATE, state_number(state), time, code))
            found.append(Reading(STATE_TEXT, memory.get("print", memory.get("host", "")), time, code))
        if state in RUNNING and not memory.get("file"):
            return  # we came in the middle of a print
        job = job_of(memory.get("file"), state)
        if (job, code) != memory.get("job"):
            memory["job"] = (job, code)
            found.append(Reading(JOB, job, time, code))


_JOINT: Final = frozenset(
    (
        ("print_stats", "filename"),
        ("print_stats", "state"),
        ("print_stats", "message"),
        ("webhooks", "state"),
        ("webhooks", "state_message"),
    )
)


def _connection(device: Device, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
    """Moonraker's last will, or its greeting."""
    server = document_of(payload).get("server")
    if server not in ("online", "offline"):
        raise PayloadError("'server' is neither online nor offline")
    time, status = time_of(None, arrival, retained=retained)
    return device.connected(server == "online", time, status)
