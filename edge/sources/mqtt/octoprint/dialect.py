"""OctoPrint's topics: events, progress, temperatures and the plugin's last will.

Source: github.com/OctoPrint/OctoPrint-MQTT (README.md, octoprint_mqtt/__init__.py) and docs.octoprint.org, Events.
"""

import re
from typing import Any, Final

from edge.sources.mqtt.device import Device, DeviceDialect, Quantity, Reading
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.payload import PayloadError
from edge.sources.mqtt.printers import (
    BED,
    BED_TARGET,
    CHAMBER,
    CHAMBER_TARGET,
    ELAPSED,
    ERROR,
    FILE,
    JOB,
    LAYER,
    LAYERS,
    PROGRESS,
    REMAINING,
    RUNNING,
    STATE,
    STATE_TEXT,
    Z,
    job_of,
    of_tool,
    state_number,
)
from edge.sources.mqtt.scalars import document_of, table, time_of
from fieldlab.model.place import check_name

_TOOL = re.compile(r"tool(\d{1,2})", re.ASCII)
_LAYER_EVENT: Final = "DisplayLayerProgress_layerChanged"  # of the plugin DisplayLayerProgress
_EVENTS: Final = {  # event → state
    "PrintStarted": "printing",
    "PrintResumed": "printing",
    "PrintPaused": "paused",
    "PrintDone": "finished",
    "PrintFailed": "failed",
    "PrintCancelled": "cancelled",
    "Disconnected": "offline",
    "Connected": "idle",
}
_STATES: Final = {  # state_id of PrinterStateChanged → state
    "OPERATIONAL": "idle",
    "STARTING": "preparing",
    "PRINTING": "printing",
    "RESUMING": "printing",
    "FINISHING": "printing",
    "CANCELLING": "printing",
    "PAUSING": "printing",
    "PAUSED": "paused",
    "TRANSFERING_FILE": "idle",
    "ERROR": "error",
    "CLOSED_WITH_ERROR": "error",
    "CLOSED": "offline",
    "OFFLINE": "offline",
    "NONE": "offline",
    "OPEN_SERIAL": "offline",
    "DETECT_SERIAL": "offline",
    "CONNECTING": "offline",
}
_KEPT: Final = frozenset(("state", "state_text", "job", "file", "error"))  # what OctoPrint knows without the printer


class OctoPrintDialect(DeviceDialect):
    """The format `octoprint`; see `DeviceDialect`."""

    def readings(self, device: Device, path: str, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
        """As in `DeviceDialect`."""
        kind, _, name = path.partition("/")
        if path == "mqtt":
            return _connection(device, payload, arrival, retained=retained)
        if kind not in ("event", "progress", "temperature") or not name:
            raise Ignored("unmatched")
        document = document_of(payload)
        time, status = time_of(document.get("_timestamp"), arrival, retained=retained)
        found: list[Reading] = []
        if kind == "temperature":
            self._temperature(found, name, document, time, status)
        elif kind == "event":
            self._event(device, found, name, document, time, status)
        elif name == "printing":
            self._progress(device, found, document, time, status)
        else:
            raise Ignored("ignored")
        return found

    def _temperature(self, found: list[Reading], name: str, document: dict[str, Any], time: int, status: int) -> None:
        actual, target = _heater(name)
        for what, key in ((actual, "actual"), (target, "target")):
            if document.get(key) is not None:  # a heater without a target has none
                self.numbers(found, what, document[key], time, status)

    def _event(
        self, device: Device, found: list[Reading], name: str, document: dict[str, Any], time: int, status: int
    ) -> None:
        if name == "ZChange":
            self.numbers(found, Z, document.get("new"), time, status)
        elif name == "Error":
            self.texts(found, ERROR, document.get("error"), time, status)
        elif name == "FileSelected":
            self.texts(found, FILE, document.get("path") or document.get("file"), time, status)
        elif name == _LAYER_EVENT:
            self.numbers(found, LAYER, document.get("currentLayer"), time, status)
            self.numbers(found, LAYERS, document.get("totalLayer"), time, status)
        elif name == "PrinterStateChanged":
            state_id = document.get("state_id")
            self.texts(found, STATE_TEXT, document.get("state_string") or state_id, time, status)
            state = _STATES.get(state_id) if isinstance(state_id, str) else None
            if state is not None:
                self._state(device, found, state, time, status)
        elif name in _EVENTS:
            self._print_event(device, found, name, document, time, status)
        else:
            raise Ignored("ignored")

    def _print_event(
        self, device: Device, found: list[Reading], name: str, document: dict[str, Any], time: int, status: int
    ) -> None:
        """A print starts, pauses or ends, or the printer comes or goes."""
        state = _EVENTS[name]
        if name == "PrintFailed" and document.get("reason") == "cancelled":
            state = "cancelled"
        if name == "PrintStarted":
            file = document.get("path") or document.get("name") or document.get("filename") or document.get("file")
            device.memory["file"] = file if isinstance(file, str) else "unnamed"
            found.append(Reading(FILE, device.memory["file"], time, status))
            found.append(Reading(ERROR, "", time, status))
            if device.memory.get("job"):  # its end was not heard: the same file again is another part
                found.append(Reading(JOB, "", time, status))
            device.memory["job"] = ""
        if name.startswith("Print") and "time" in document:
            self.numbers(found, ELAPSED, document["time"], time, status)
        self._state(device, found, state, time, status)
        if name == "Disconnected":
            found += device.gone(time, _KEPT)

    def _progress(self, device: Device, found: list[Reading], document: dict[str, Any], time: int, status: int) -> None:
        progress, path = document.get("progress"), document.get("path")
        self.numbers(found, PROGRESS, progress, time, status)
        if isinstance(path, str) and path:
            found.append(Reading(FILE, path, time, status))
            under_way = isinstance(progress, int | float) and 0 < progress < 100  # 0 comes at a file's selection, too
            if under_way and "job" not in device.memory:  # we came in the middle of a print
                device.memory["file"] = path
                self._state(device, found, "printing", time, status)
        data = table(document.get("printer_data"))
        done = table(data.get("progress"))
        for what, raw in ((Z, data.get("currentZ")), (ELAPSED, done.get("printTime"))):
            if raw is not None:
                self.numbers(found, what, raw, time, status)
        if done.get("printTimeLeft") is not None:
            self.numbers(found, REMAINING, done["printTimeLeft"], time, status)

    def _state(self, device: Device, found: list[Reading], state: str, time: int, status: int) -> None:
        """Add the state, and the job if that changes with it."""
        found.append(Reading(STATE, state_number(state), time, status))
        if state in RUNNING and not device.memory.get("file"):
            return  # the file comes with the next message that names it
        job = job_of(device.memory.get("file"), state)
        if job != device.memory.get("job"):
            device.memory["job"] = job
            found.append(Reading(JOB, job, time, status))
        if state not in RUNNING:
            device.memory["file"] = ""


def _connection(device: Device, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
    """The plugin's last will, or its greeting."""
    if payload not in (b"connected", b"disconnected"):
        raise PayloadError("neither `connected` nor `disconnected`")
    time, status = time_of(None, arrival, retained=retained)
    return device.connected(payload == b"connected", time, status)


def _heater(name: str) -> tuple[Quantity, Quantity]:
    """Actual and target of a heater.

    Raises:
        ValueError: if its name cannot be a signal's.
    """
    tool = _TOOL.fullmatch(name)
    if tool:
        return of_tool(int(tool[1]), "nozzle"), of_tool(int(tool[1]), "nozzle_target")
    if name in ("bed", "chamber"):
        return (BED, BED_TARGET) if name == "bed" else (CHAMBER, CHAMBER_TARGET)
    if name.startswith("_"):
        raise Ignored("ignored")
    check_name(name, "signal")
    return Quantity(name, "°C"), Quantity(f"{name}_target", "°C")
