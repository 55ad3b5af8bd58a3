"""Bambu's reports: partial ones, of what changed, merged into a whole that is asked for after each connect.

A printer is its own broker and publishes at QoS 0: what it says while nobody listens is gone, so the guarantee is
`from-receipt`. Reports have no time: readings have that of arrival. A reading is made of what a report says, not of
what it leaves out.
"""

import time as clock
from collections.abc import Callable
from typing import Any, Final

import msgspec

from edge.sources.base import SourceContext
from edge.sources.mqtt.bambu.report import FIELDS, STATES, TRAY, entries, faults, merge, print_fault, remembered
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.device import Device, DeviceDialect, Quantity, Reading
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.payload import PayloadError
from edge.sources.mqtt.printers import ERROR, FILE, JOB, RUNNING, STATE, STATE_TEXT, job_of, of_tool, state_number
from edge.sources.mqtt.scalars import document_of, number, table, time_of
from edge.sources.mqtt.speaker import Message, Speaker

ASK_EVERY: Final = 300.0  # s; a pushall more often makes a P1 lag (OpenBambuAPI, mqtt.md)
_BACK: Final = 100  # a sequence_id at most so much smaller is an older report; more is a printer that started anew
_STALE_MAX: Final = 10  # so many older ones in a row are none
_TASK = Quantity("task", "", "text")


class _Asked(msgspec.Struct):
    """When a device was asked for the whole, and whether it is to be asked."""

    wanted: bool = True
    at: float = -ASK_EVERY
    number: int = 0


class BambuDialect(DeviceDialect, Speaker):
    """The format `bambu`; see `DeviceDialect`.

    Attributes:
        now: seconds, of a clock that never goes back.
    """

    def __init__(self, config: MqttConfig, context: SourceContext, signals: Signals, prefix: str) -> None:
        super().__init__(config, context, signals, prefix, sure=False)
        self.now: Callable[[], float] = clock.monotonic
        self.counters.update(stale=0, full=0, partial=0, asked=0)
        self._asked: dict[str, _Asked] = {}
        if "{" not in prefix and "+" not in prefix:
            self._asked[prefix] = _Asked()  # it can be asked before it said anything

    def meet(self, device: Device, prefix: str) -> Device:
        """As in `DeviceDialect`: who was not known is asked for everything."""
        self._asked.setdefault(prefix, _Asked())
        device.memory.update(whole={}, prefix=prefix)
        return device

    def greetings(self, *, present: bool) -> list[Message]:
        """As in `Speaker`: while we were away, something was missed."""
        del present
        for asked in self._asked.values():
            asked.wanted = True
        return self.drain()

    def drain(self) -> list[Message]:
        """As in `Speaker`: a pushall for each device that is due."""
        now = self.now()
        due = [(prefix, each) for prefix, each in self._asked.items() if each.wanted and now - each.at >= ASK_EVERY]
        messages = []
        for prefix, each in due:
            each.wanted, each.at, each.number = False, now, each.number + 1
            self.counters["asked"] += 1
            pushing = {"sequence_id": str(each.number), "command": "pushall", "version": 1, "push_target": 1}
            messages.append(Message(f"{prefix}/request", msgspec.json.encode({"pushing": pushing})))
        return messages

    def lost(self) -> None:
        """As in `Speaker`: after a new connection, sequence numbers may start anew."""
        for device in self._devices.values():
            device.memory.pop("sequence", None)

    def readings(self, device: Device, path: str, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
        """As in `DeviceDialect`."""
        if path != "report":
            raise Ignored("unmatched")
        report = document_of(payload).get("print")
        if report is None:
            raise Ignored("ignored")  # versions, log lines, answers to others
        if not isinstance(report, dict):
            raise PayloadError("'print' is no object")
        if report.get("command") != "push_status":
            raise Ignored("ignored")  # answers to commands
        self._in_order(device, report)
        whole = device.memory["whole"]
        complete = report.get("msg", 0) == 0 and {"gcode_state", "subtask_name"} <= report.keys()
        self.counters["full" if complete else "partial"] += 1
        if complete:
            whole.clear()
            device.memory["full"] = True
        merge(whole, remembered(report))
        if not device.memory.get("full"):
            self._asked[device.memory["prefix"]].wanted = True
        time, status = time_of(None, arrival, retained=retained)
        found: list[Reading] = []
        for field, (what, convert) in FIELDS.items():
            if field in report:
                value = convert(report[field])
                if value is None:
                    self.counters["skipped"] += 1
                else:
                    found.append(Reading(what, value, time, status))
        self._job(device, found, report, time, status)
        self._faults(found, report, whole, time, status)
        self._filament(found, report, whole, time, status)
        return found

    def _in_order(self, device: Device, report: dict[str, Any]) -> None:
        """Note the report's sequence number.

        Raises:
            Ignored: `stale`, if it is older than the last one.
        """
        sequence = number(report.get("sequence_id"))
        if sequence is None:
            return
        memory = device.memory
        behind = memory.get("sequence", sequence) - sequence
        if 0 < behind <= _BACK and report.get("msg") != 0 and memory.get("stale", 0) < _STALE_MAX:
            memory["stale"] = memory.get("stale", 0) + 1
            raise Ignored("stale")
        memory["sequence"], memory["stale"] = sequence, 0

    def _job(self, device: Device, found: list[Reading], report: dict[str, Any], time: int, status: int) -> None:
        """State, file, task and job: the job needs the state and the name, and a report may hold one of them."""
        whole = device.memory["whole"]
        raw = report.get("gcode_state")
        if isinstance(raw, str):
            found.append(Reading(STATE_TEXT, raw, time, status))
            if raw in STATES:
                found.append(Reading(STATE, state_number(STATES[raw]), time, status))
            else:
                self.counters["skipped"] += 1
        for field, what in (("gcode_file", FILE), ("task_id", _TASK)):
            if field in report:
                self.texts(found, what, report[field], time, status)
        if not report.keys() & {"gcode_state", "subtask_name", "gcode_file"}:
            return
        state = STATES.get(whole["gcode_state"]) if isinstance(whole.get("gcode_state"), str) else None
        name = whole.get("subtask_name") or whole.get("gcode_file")
        if state is None or not (name is None or isinstance(name, str)):
            return
        job = job_of(name, state)
        if job or state not in RUNNING:
            found.append(Reading(JOB, job, time, status))

    def _faults(
        self, found: list[Reading], report: dict[str, Any], whole: dict[str, Any], time: int, status: int
    ) -> None:
        """All faults in one text: that of the print, and those of the health management system."""
        if not report.keys() & {"hms", "print_error"}:
            return
        code = whole.get("print_error")
        words = [print_fault(code) if isinstance(code, int) else "", faults(whole.get("hms"))]
        found.append(Reading(ERROR, ", ".join(word for word in words if word), time, status))

    def _filament(
        self, found: list[Reading], report: dict[str, Any], whole: dict[str, Any], time: int, status: int
    ) -> None:
        """The tray in use, its material, and each AMS unit's climate; the second nozzle of those that have one."""
        ams = table(report.get("ams"))
        if "tray_now" in ams:
            self.numbers(found, TRAY, ams["tray_now"], time, status)
        for unit in entries(ams.get("ams")):
            place = unit.get("id")
            if not isinstance(place, str | int) or not str(place).isdigit() or len(str(place)) > 3:
                self.counters["skipped"] += 1
                continue
            for field, what in (
                ("temp", of_tool(int(place), "ams")),
                ("humidity", of_tool(int(place), "ams_humidity", "")),
            ):
                if field in unit:
                    self.numbers(found, what, unit[field], time, status)
        if ams or "vt_tray" in report:
            kind = _material(whole)
            if kind is not None:
                found.append(Reading(Quantity("filament", "", "text"), kind, time, status))


def _material(whole: dict[str, Any]) -> str | None:
    """The material of the tray in use; None if it cannot be told."""
    ams = table(whole.get("ams"))
    now = number(ams.get("tray_now"))
    if now is None:
        return None
    if now == 255:
        return ""
    trays = [table(whole.get("vt_tray"))] if now == 254 else []
    for unit in entries(ams.get("ams")):
        trays += [tray for tray in entries(unit.get("tray")) if _place(unit, tray) == now]
    return next((tray["tray_type"] for tray in trays if isinstance(tray.get("tray_type"), str)), None)


def _place(unit: dict[str, Any], tray: dict[str, Any]) -> float | None:
    """A tray's number: 4 * unit + place."""
    places = number(unit.get("id")), number(tray.get("id"))
    return None if places[0] is None or places[1] is None else 4 * places[0] + places[1]
