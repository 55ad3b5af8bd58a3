"""Metrics → readings, by the birth certificate that explains them."""

from collections import Counter
from typing import NamedTuple

from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.rows import Scalar
from edge.sources.mqtt.sparkplug.naming import is_control, signal_name
from edge.sources.mqtt.sparkplug.nodes import Branch
from edge.sources.mqtt.sparkplug.tables import Entry, Table
from edge.sources.mqtt.sparkplug.values import SINGLE, flatten
from edge.sources.mqtt.times import EARLIEST
from fieldlab.model import Guarantee, SignalInfo, SignalKey
from fieldlab.model.status import BAD, BAD_TYPE_MISMATCH, UNCERTAIN
from fieldlab.sparkplug.datatypes import STRING, TEXT, UUID
from fieldlab.sparkplug.payload import Metric, Payload

UNCERTAIN_LAST_USABLE = 0x40900000
_DAY = 86_400_000_000_000
_MS = 1_000_000
_UNITS = ("engunit", "engineeringunits", "units", "unit")


class Reading(NamedTuple):
    """One row to come."""

    signal: int
    time: int
    value: Scalar
    status: int
    past: bool = False


class _Frame(NamedTuple):
    """What the metrics of one payload share."""

    branch: Branch
    body: Payload
    base: int
    arrival: int
    guarantee: Guarantee
    birth: bool


class Reader:
    """Reads payloads; used by one thread.

    Args:
        signals: gives signals their numbers.
        counters: `skipped`, `mismatched`, `retyped`, `unborn`, `absurd_times`, `historical`, `transient` count here.
    """

    def __init__(self, signals: Signals, counters: Counter[str]) -> None:
        self._signals = signals
        self._counters = counters

    def read(
        self, branch: Branch, table: Table, body: Payload, arrival: int, guarantee: Guarantee, *, birth: bool
    ) -> list[Reading]:
        """The readings in a payload.

        Raises:
            ValueError: if the time of data cannot be.
            TooManySignalsError: if it needs a new signal and the agent has as many as it may.
        """
        base = self.time(body.time, arrival)
        if base is None:
            if not birth:
                raise ValueError(f"the time {body.time} ms is before 2000 or more than a day ahead")
            base = arrival
        frame = _Frame(branch, body, base, arrival, guarantee, birth)
        found: list[Reading] = []
        for metric in body.metrics:
            entry = table.find(metric)
            if entry is None:
                if is_control(metric.name):
                    continue
                if metric.alias is not None or not metric.datatype:
                    self._counters["skipped"] += 1
                    continue
                self._counters["unborn"] += 1
                entry = Entry(metric.name, None, metric.datatype)
            signal = table.signals.get(entry.name)
            if signal is None:
                signal = signal_name(entry.name)
            if signal:
                found += self._metric(frame, signal, entry, metric)
            elif not is_control(entry.name):
                self._counters["skipped"] += 1
        return found

    def time(self, ms: int | None, arrival: int) -> int | None:
        """Nanoseconds; None for a time that cannot be."""
        if ms is None:
            return arrival
        ns = ms * _MS
        return ns if EARLIEST <= ns <= arrival + _DAY else None

    def _metric(self, frame: _Frame, signal: str, entry: Entry, metric: Metric) -> list[Reading]:
        """The readings of one metric."""
        counters = self._counters
        at = frame.base if metric.time is None else self.time(metric.time, frame.arrival)
        if at is None:
            counters["absurd_times"] += 1
            at = frame.base
        datatype = metric.datatype or entry.datatype
        if datatype != entry.datatype:
            counters["retyped"] += 1
        status = quality(metric.properties)
        values: list[tuple[str, Scalar]]
        if metric.null:
            values = [("", None)] if datatype in SINGLE else []
        else:
            try:
                values = flatten(frame.body.data, datatype, metric.value)
            except ValueError:
                counters["mismatched"] += 1
                values, status = [("", None)], BAD_TYPE_MISMATCH
        if not values:
            counters["skipped"] += 1
        counters["historical"] += metric.historical
        counters["transient"] += metric.transient
        if frame.birth and datatype in SINGLE:
            self._describe(frame, signal, datatype, metric)
        found = []
        for suffix, value in values:
            name = signal_name(signal + suffix) if suffix else signal
            if not name:
                counters["skipped"] += 1
                continue
            index = self.index(frame.branch, name, frame.guarantee)
            found.append(Reading(index, at, None if status & BAD else value, status, metric.historical))
        return found

    def index(self, branch: Branch, name: str, guarantee: Guarantee) -> int:
        """The number of a signal; a guarantee is told once, and a weaker one holds."""
        known = branch.signals.get(name)
        if known is None or (known[1] != guarantee and guarantee == "from-receipt"):
            known = (self._signals.index(SignalKey(branch.place, name), guarantee), guarantee)
            branch.signals[name] = known
        return known[0]

    def _describe(self, frame: _Frame, signal: str, datatype: int, metric: Metric) -> None:
        """Tell what a birth certificate knows: the unit, and that it is text."""
        units = {key.replace(" ", "").lower(): value for key, value in metric.properties.items()}
        unit = next((str(units[key]) for key in _UNITS if isinstance(units.get(key), str)), "")
        text = datatype in (STRING, TEXT, UUID)
        known = frame.branch.signals
        if (unit or text) and signal not in known:
            key = SignalKey(frame.branch.place, signal)
            info = SignalInfo(key=key, unit=unit[:50], kind="text" if text else "gauge", guarantee=frame.guarantee)
            known[signal] = (self._signals.describe(info), frame.guarantee)


def quality(properties: dict[str, float | int | str | None]) -> int:
    """The StatusCode of the property `Quality`: 192 good, 0 bad, 500 stale (Sparkplug 3.0.0, 6.4.13); absent: Good.

    Other numbers are read as OPC Data Access qualities: up to 63 bad, up to 127 uncertain, up to 255 good. The property
    `StatusCode`, as Fieldlab's own edge nodes have it, says it whole.
    """
    whole = properties.get("StatusCode")
    if isinstance(whole, int) and 0 <= whole < 2**32:
        return whole
    found = properties.get("Quality", properties.get("quality", 192))
    if not isinstance(found, int):
        return 0 if found is None else BAD
    if found == 500:
        return UNCERTAIN_LAST_USABLE
    if 192 <= found <= 255:
        return 0
    return UNCERTAIN if 64 <= found <= 127 else BAD
