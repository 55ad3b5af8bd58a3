"""VDA 5050's topics from the vehicle: state, visualization, connection, factsheet.

Each message has its own time, and a number that the vehicle counts up for each topic: a gap in it is a known loss.
State and visualization tell the same position under the same names; told twice for one time, it is one point.
"""

import re
from typing import Any, Final

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.device import Device, DeviceDialect, Reading
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.keeper import Hole, Keeper
from edge.sources.mqtt.payload import PayloadError
from edge.sources.mqtt.scalars import document_of, number, table, time_of
from edge.sources.mqtt.vda5050.state import (
    ERROR,
    ERROR_LEVEL,
    ERRORS,
    FACTS_NUMBER,
    FACTS_TEXT,
    LOAD,
    LOAD_WEIGHT,
    LOADS,
    NUMBERS,
    ORDER,
    STATE,
    STATES,
    TEXTS,
    WORDS,
    at,
    first,
    level_of,
    state_of,
    words_of,
    working_on,
)

_COMES: Final = {
    "ONLINE": True,
    "OFFLINE": False,
    "CONNECTIONBROKEN": False,
    "CONNECTION_BROKEN": False,
    "HIBERNATING": False,
}
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", re.ASCII)
_BACK: Final = 100
_GAP_MAX: Final = 100_000  # messages; a larger jump is a counter that was set anew


class VdaDialect(DeviceDialect, Keeper):
    """The format `vda5050`; see `DeviceDialect`, and `Keeper` for what never came."""

    def __init__(self, config: MqttConfig, context: SourceContext, signals: Signals, prefix: str) -> None:
        super().__init__(config, context, signals, prefix)
        self.counters.update(lost_messages=0)

    def readings(self, device: Device, path: str, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
        """As in `DeviceDialect`."""
        if path not in ("state", "visualization", "connection", "factsheet"):
            raise Ignored("unmatched")
        document = document_of(payload)
        stamp = document.get("timestamp")
        if isinstance(stamp, str) and _NO_ZONE.fullmatch(stamp):
            stamp += "Z"  # the specification wants UTC; some vehicles leave its letter out
        time, status = time_of(stamp, arrival, retained=retained)
        found: list[Reading] = []
        if path == "connection":
            return _connection(device, document, time, arrival, retained=retained)
        if path == "factsheet":
            for where, what in FACTS_TEXT:
                if at(document, where) is not None:
                    self.texts(found, what, at(document, where), time, status)
            for where, what in FACTS_NUMBER:
                if at(document, where) is not None:
                    self.numbers(found, what, at(document, where), time, status)
            return found
        self._state(found, document, time, status)
        self._count(device, path, document, time)
        return found

    def _state(self, found: list[Reading], document: dict[str, Any], time: int, status: int) -> None:
        """Everything in a state; a visualization has some of it."""
        for paths, what in NUMBERS:
            raw = first(document, paths)
            if raw is not None:
                self.numbers(found, what, raw, time, status)
        for paths, what in TEXTS:
            raw = first(document, paths)
            if raw is not None:
                self.texts(found, what, raw, time, status)
        for paths, what, words in WORDS:
            raw = first(document, paths)
            if raw in words:
                found.append(Reading(what, float(words.index(raw)), time, status))
            else:
                self.counters["skipped"] += raw is not None
        order = working_on(document)
        if order is not None:
            found.append(Reading(ORDER, order, time, status))
        state = state_of(document, order)
        if state is not None:
            found.append(Reading(STATE, float(STATES.index(state)), time, status))
        errors = document.get("errors")
        if isinstance(errors, list):
            found.append(Reading(ERRORS, float(len(errors)), time, status))
            found.append(Reading(ERROR_LEVEL, float(level_of(errors)), time, status))
            found.append(Reading(ERROR, words_of(errors), time, status))
        loads = document.get("loads")
        if isinstance(loads, list):
            ids = [table(each).get("loadId") for each in loads]
            found.append(Reading(LOADS, float(len(loads)), time, status))
            found.append(Reading(LOAD, ", ".join(each for each in ids if isinstance(each, str))[:1000], time, status))
            weights = [number(table(each).get("weight")) for each in loads]
            known = [float(each) for each in weights if each is not None and abs(each) < 1e9]
            if known or not loads:
                found.append(Reading(LOAD_WEIGHT, sum(known), time, status))

    def holes(self) -> list[Hole]:
        """As in `Keeper`."""
        found, self.missing = self.missing, []
        return found

    def _count(self, device: Device, path: str, document: dict[str, Any], time: int) -> None:
        """Note how many messages of a topic are missing before this one."""
        header = document.get("headerId")
        if not isinstance(header, int) or isinstance(header, bool):
            return
        headers = device.memory.setdefault("headers", {})
        last = headers.get(path, header - 1)
        if 0 <= last - header <= _BACK:
            return  # told again, or a vehicle that started anew: no reason to call what follows lost
        gap = header - last - 1
        headers[path] = header
        times = device.memory.setdefault("times", {})
        before, times[path] = times.get(path, 0), time
        if 0 < gap <= _GAP_MAX:
            self.counters["lost_messages"] += gap
            device.lost_before, device.complete_until = gap, before


def _connection(device: Device, document: dict[str, Any], time: int, arrival: int, *, retained: bool) -> list[Reading]:
    """The vehicle comes or goes. A broken connection is its last will, which it wrote when it came: now is the time."""
    state = document.get("connectionState")
    if not isinstance(state, str) or state not in _COMES:
        raise PayloadError("'connectionState' is none of ONLINE, OFFLINE, CONNECTIONBROKEN")
    status = 0
    if state in ("CONNECTIONBROKEN", "CONNECTION_BROKEN"):
        time, status = time_of(None, arrival, retained=retained)
    return device.connected(_COMES[state], time, status)
