"""A Sparkplug B edge node: births, data and deaths in their sequence. It makes messages, and knows no broker.

A machine is a device, a signal is a metric, and a signal's number in the journal is its alias. Rules: Eclipse Sparkplug
3.0.0, chapters 5 and 6.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from fieldlab.model import Batch, SignalInfo, SignalTable
from fieldlab.model.status import BAD, BAD_NO_COMMUNICATION
from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug import encode as e
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.payload import Metric, Value
from ingest.stores.mqtt.metrics import STATUS, Known, Scalar, suits, type_of, value_of

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
_MOST = 1_000  # metrics in a message of data
_LONG = 200  # characters of a text
_HEAD = 64  # bytes of a payload beside its metrics, and of a packet beside topic and payload
_TAG = 6  # bytes of a metric's tag and length, at most
_MS = 1_000_000


class Part(NamedTuple):
    """One reading in a message: whose, when (ns), and the metric's bytes."""

    signal: int
    time: int
    data: bytes


class Out(NamedTuple):
    """A message to publish; with `words` one that cannot be, and why. Births and deaths have no parts."""

    topic: str
    payload: bytes
    parts: tuple[Part, ...] = ()
    words: str = ""

    @property
    def is_birth(self) -> bool:
        """Whether it is a birth certificate, without which nobody understands the data."""
        return self.topic.split("/")[2] in ("NBIRTH", "DBIRTH")


class _Pile:
    """Readings that go into one message.

    Args:
        room: bytes that their metrics may take.
        most: readings that may be in it.
    """

    def __init__(self, room: int, most: int) -> None:
        self.parts: list[Part] = []
        self._room, self._most, self._size = room, most, 0

    def has_room(self, part: Part) -> bool:
        """Whether one more fits."""
        return self._size + len(part.data) <= self._room and len(self.parts) < self._most

    def add(self, part: Part) -> None:
        """Put one on it."""
        self.parts.append(part)
        self._size += len(part.data) + _TAG

    def take(self) -> list[Part]:
        """All of it, off."""
        parts, self.parts, self._size = self.parts, [], 0
        return parts


class Device:
    """A machine as a device.

    Attributes:
        id: its name at the broker.
        place: its path.
        signals: its metrics.
        born: whether its birth certificate is in force, with every metric and type.
        lost: whether it is dead: no metric of it has a connection.
    """

    def __init__(self, id_: str, place: str) -> None:
        self.id, self.place = id_, place
        self.signals: dict[int, None] = {}
        self.born = self.lost = False


class EdgeNode:
    """One edge node. Used by one thread at a time.

    Args:
        group: of the edge node.
        node: its name.
        device: what a machine is called: text with `{site}`, `{area}`, `{line}`, `{machine}`.
        signals: what the indices of a batch mean.

    Attributes:
        known: what is known of each metric.
        max_packet: bytes of a message of data.
        careful: whether a message of data has one reading, and births have no long texts: the broker hangs up on one.
    """

    def __init__(self, group: str, node: str, device: str, signals: SignalTable) -> None:
        self.known: dict[int, Known] = {}
        self.max_packet = 256_000
        self.careful = False
        self._group, self._node, self._template, self._signals = group, node, device, signals
        self._devices: dict[str, Device] = {}
        self._units: dict[int, str] = {}
        self._stale: dict[int, None] = {}  # their newest reading was only told as history
        self._before: dict[int, Known | None] = {}  # as it was before what is being told
        self._seq = 0

    def topic(self, kind: str, device: str = "") -> str:
        """`spBv1.0/GROUP/KIND/NODE[/DEVICE]`."""
        return f"{NAMESPACE}/{self._group}/{kind}/{self._node}" + (f"/{device}" if device else "")

    def restore(self, known: dict[int, Known]) -> None:
        """Take up what an earlier process knew."""
        for signal, each in known.items():
            if signal < len(self._signals) and (device := self._device(signal)) is not None:
                self.known[signal] = each
                device.signals[signal] = None

    def describe(self, info: SignalInfo) -> None:
        """Learn a unit; a metric whose unit changes is born again."""
        signal = self._signals.find(info.key)
        if signal is None or self._units.get(signal) == info.unit:
            return
        self._units[signal] = info.unit
        found = self.known.get(signal)
        if found is not None and found.unit != info.unit and (device := self._device(signal)) is not None:
            found.unit = info.unit
            device.born = False

    # ---- births and deaths ----

    def death(self, bdseq: int) -> Out:
        """The edge node's own death, also its will: `bdseq` says which birth it ends."""
        return Out(self.topic("NDEATH"), e.assemble(None, None, [_bdseq(bdseq, None)]))

    def births(self, bdseq: int, now: int) -> list[Out]:
        """The births of the edge node and of every device that is there, at `now` (ms)."""
        self._seq = 0
        control = Metric(REBIRTH, None, now, t.BOOLEAN, False, False, False, Value(p.BOOLEAN, False), {})
        metrics = [_bdseq(bdseq, now), e.metric(control)]
        found = [Out(self.topic("NBIRTH"), e.assemble(now, self._next(), metrics))]
        for device in self._devices.values():
            device.born = False
            device.lost = self._all_lost(device)
            if device.signals and not device.lost:
                found.append(self._birth(device, now))
        return found

    def pending(self, now: int) -> list[Out]:
        """Births of devices that changed since they were born."""
        changed = [d for d in self._devices.values() if d.signals and not d.born and not d.lost]
        return [self._birth(device, now) for device in changed]

    def _birth(self, device: Device, now: int) -> Out:
        device.born, device.lost = True, False
        metrics = []
        for signal in device.signals:
            known = self.known[signal]
            if self.careful and isinstance(known.value, str) and len(known.value) > _LONG:
                known = msgspec.structs.replace(known, value=None, status=BAD)
            metrics.append(known.birth(self._signals[signal].name, signal))
            self._stale.pop(signal, None)
        return Out(self.topic("DBIRTH", device.id), e.assemble(now, self._next(), metrics))

    def _death(self, device: Device) -> Out:
        device.born, device.lost = False, True
        when = max(self.known[signal].time for signal in device.signals) // _MS
        return Out(self.topic("DDEATH", device.id), e.assemble(when, self._next(), []))

    def _all_lost(self, device: Device) -> bool:
        live = [self.known[signal] for signal in device.signals if self.known[signal].live]
        return bool(live) and all(each.status == BAD_NO_COMMUNICATION for each in live)

    # ---- data ----

    def data(self, batch: Batch, now: int, *, historical: bool) -> list[Out]:
        """The messages about readings, machine by machine, those of each machine in order.

        A new metric, or one of another type, is born before its first reading; a machine that has lost every
        connection dies, unless that is history.
        """
        texts: dict[int, Scalar] = dict(batch.texts())
        texts |= dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
        rows: dict[int, list[tuple[int, int, Scalar, int]]] = {}
        found: list[Out] = []
        columns = zip(
            batch.signal.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True
        )
        by_device: dict[str, list[tuple[int, int, Scalar, int]]] = {}
        homes: dict[int, Device | None] = {}
        for row, (signal, time, value, status) in enumerate(columns):
            if signal not in homes:
                homes[signal] = self._device(signal)
            device = homes[signal]
            reading = (signal, time, None if status & BAD else texts.get(row, value), status)
            if device is None:
                rows.setdefault(signal, []).append(reading)
            else:
                by_device.setdefault(device.id, []).append(reading)
        for signal, readings in rows.items():
            found.append(self._homeless(signal, readings))
        for id_, readings in by_device.items():
            device = self._devices[id_]
            found += self._of_device(device, readings, now, historical=historical)
            lost = any(status == BAD_NO_COMMUNICATION for *_, status in readings)
            if lost and not historical and device.born and self._all_lost(device):
                found.append(self._death(device))
        return found

    def _of_device(
        self, device: Device, readings: list[tuple[int, int, Scalar, int]], now: int, *, historical: bool
    ) -> Iterator[Out]:
        for signal, time, value, status in readings:  # all that is new, so that there is one birth
            if signal not in self.known:
                self._learn(device, signal, type_of(value), time, value, status)
        room = self.max_packet - len(self.topic("DDATA", device.id).encode()) - _HEAD
        pile = _Pile(room, 1 if self.careful else _MOST)
        for signal, time, value, status in readings:
            self._update(device, signal, (time, value, status), historical=historical)
            part = Part(signal, time, self.known[signal].metric(signal, time, value, status, historical=historical))
            if (not device.born or not pile.has_room(part)) and pile.parts:
                yield self._message(device, pile.take(), now)
            if not device.born:
                yield self._birth(device, now)
            if len(part.data) > room:
                words = f"Packet too large: {len(part.data)} bytes, and the broker and max_packet allow {room}"
                yield Out(self.topic("DDATA", device.id), b"", (part,), words)
            else:
                pile.add(part)
        if pile.parts:
            yield self._message(device, pile.take(), now)

    def _update(self, device: Device, signal: int, reading: tuple[int, Scalar, int], *, historical: bool) -> None:
        """Note a reading: another type wants a birth, and the newest is the current value."""
        known, (time, value, status) = self.known[signal], reading
        if signal not in self._before:
            self._before[signal] = msgspec.structs.replace(known)
        known.live = True
        if not suits(known.datatype, value):
            known.datatype, device.born = type_of(value), False
        if time >= known.time:
            known.time, known.value, known.status = time, value, status
            if historical:
                self._stale[signal] = None
            else:
                self._stale.pop(signal, None)

    def told(self) -> None:
        """What was made since the last time has been told: births may say it."""
        self._before.clear()

    def untold(self) -> None:
        """It has not been told, and comes again."""
        for signal, known in self._before.items():
            device = self._device(signal)
            if known is not None:
                self.known[signal] = known
            elif device is not None:
                del self.known[signal], device.signals[signal]
        self._before.clear()

    def refused(self, signal: int) -> None:
        """The newest reading of a metric could not be told: births say that it has no value."""
        if (known := self.known.get(signal)) is not None:
            known.value, known.status = None, BAD

    def refresh(self, now: int) -> list[Out]:
        """The current values of metrics whose newest reading was told as history, now that there is no more of it."""
        stale, self._stale = self._stale, {}
        found: list[Out] = []
        by_device: dict[str, list[int]] = {}
        for signal in stale:
            if (device := self._device(signal)) is not None:
                by_device.setdefault(device.id, []).append(signal)
        for id_, signals in by_device.items():
            device = self._devices[id_]
            readings = [(s, self.known[s].time, self.known[s].value, self.known[s].status) for s in signals]
            # They are told already: what the broker refuses of them now is no loss.
            found += [each._replace(parts=()) for each in self._of_device(device, readings, now, historical=False)]
            if device.born and self._all_lost(device):
                found.append(self._death(device))
        return [each for each in found if not each.words]

    def again(self, metrics: Iterable[Metric], now: int) -> list[Out]:
        """The readings of a dead letter, as history."""
        found: list[Out] = []
        for each in metrics:
            signal = len(self._signals) if each.alias is None else each.alias
            if signal >= len(self._signals):
                continue  # of another journal
            status = each.properties.get(STATUS, 0)
            reading = (signal, (each.time or 0) * _MS, value_of(each), status if isinstance(status, int) else BAD)
            device = self._device(signal)
            if device is None:
                found.append(self._homeless(signal, [reading]))
            else:
                found += self._of_device(device, [reading], now, historical=True)
        return found

    def _message(self, device: Device, parts: list[Part], now: int) -> Out:
        payload = e.assemble(now, self._next(), [part.data for part in parts])
        return Out(self.topic("DDATA", device.id), payload, tuple(parts))

    def _learn(self, device: Device, signal: int, datatype: int, time: int, value: Scalar, status: int) -> None:
        unit = self._units.get(signal, "")
        self._before[signal] = None
        self.known[signal] = Known(datatype, unit, time, value, status, live=True)
        device.signals[signal] = None
        device.born = False

    def _device(self, signal: int) -> Device | None:
        """The device of a signal; None if another machine has its name."""
        place = self._signals[signal].place
        id_ = self._template.format(site=place.site, area=place.area, line=place.line, machine=place.machine)
        found = self._devices.setdefault(id_, Device(id_, place.path))
        return found if found.place == place.path else None

    def _homeless(self, signal: int, readings: list[tuple[int, int, Scalar, int]]) -> Out:
        place = self._signals[signal].place
        id_ = self._template.format(site=place.site, area=place.area, line=place.line, machine=place.machine)
        words = (
            f"device {id_!r} is {self._devices[id_].place} already; write a `device` that tells machines apart, such as"
            ' "{line}-{machine}"'
        )
        known = [Known(type_of(value), "", time, value, status) for _, time, value, status in readings]
        parts = [
            Part(signal, time, each.metric(signal, time, value, status, historical=True))
            for each, (_, time, value, status) in zip(known, readings, strict=True)
        ]
        return Out(self.topic("DDATA", id_), b"", tuple(parts), words)

    def _next(self) -> int:
        seq, self._seq = self._seq, (self._seq + 1) & 255
        return seq


def _bdseq(bdseq: int, now: int | None) -> bytes:
    return e.metric(Metric("bdSeq", None, now, t.INT64, False, False, False, Value(p.LONG, bdseq), {}))
