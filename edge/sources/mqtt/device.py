"""What dialects of devices share: a machine named by the topic, signals with fixed names, and whether it is there.

A device's topics are a prefix, which names the machine, and a path below it. Its signals have names, units, kinds and
state texts of their own: they are described before their first reading. When the device says, or its last will says,
that it is gone, each of its signals gets one point with the status BadNoCommunication.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import NATIVE, MqttConfig, validate_template
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.keeper import Hole
from edge.sources.mqtt.rows import Rows, Scalar
from edge.sources.mqtt.scalars import number
from edge.sources.mqtt.topics import TopicTemplate, is_shared
from fieldlab.errors import ConfigError
from fieldlab.model import Guarantee, Place, SignalInfo, SignalKey, SignalKind
from fieldlab.model.place import check_name
from fieldlab.model.status import BAD_NO_COMMUNICATION

_DEVICES_MAX = 10_000  # of one source; more is a mistake in `topic`


class Quantity(msgspec.Struct, frozen=True):
    """What a dialect knows about a signal.

    Attributes:
        name: the signal's name.
        unit: as printed.
        kind: as in `SignalInfo`.
        states: the text of each number.
        event: it is about the connection itself, and keeps its value when the device is gone.
    """

    name: str
    unit: str = ""
    kind: SignalKind = "gauge"
    states: dict[str, str] = {}
    event: bool = False


class Reading(NamedTuple):
    """One reading of a device."""

    what: Quantity
    value: Scalar
    time: int
    status: int = 0


CONNECTION = Quantity("connection", "", "state", {"0": "offline", "1": "online"}, event=True)


class Device:
    """One machine.

    Attributes:
        place: where it is.
        online: whether it says that it is there; None until it said so.
        memory: what its dialect remembers of it.
        lost_before: messages that are known to be missing before the one at hand; each had its signals.
        complete_until: when the last message before those was made, ns; 0 if that is not known.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.online: bool | None = None
        self.memory: dict[str, Any] = {}
        self.lost_before = 0
        self.complete_until = 0
        self._told: dict[str, tuple[Quantity, int, Guarantee]] = {}
        self._lost: set[str] = set()

    def index(self, what: Quantity, guarantee: Guarantee, signals: Signals) -> int:
        """The number of a signal, described at its first use; a weaker guarantee is told once, and holds.

        Raises:
            TooManySignalsError: if it is new and one too many.
        """
        told = self._told.get(what.name)
        if told is None:
            key = SignalKey(self.place, what.name)
            info = SignalInfo(key=key, unit=what.unit, kind=what.kind, states=what.states, guarantee=guarantee)
            told = self._told[what.name] = (what, signals.describe(info), guarantee)
        elif guarantee == "from-receipt" != told[2]:
            signals.index(SignalKey(self.place, what.name), guarantee)
            told = self._told[what.name] = (what, told[1], guarantee)
        return told[1]

    def heard(self, readings: Iterable[Reading]) -> None:
        """Note which signals have a reading again."""
        if self._lost:
            self._lost.difference_update(each.what.name for each in readings if each.status != BAD_NO_COMMUNICATION)

    def connected(self, online: bool, time: int, status: int = 0) -> list[Reading]:  # what it says
        """What it means that the device says, or its last will says for it, whether it is there."""
        found = [Reading(CONNECTION, float(online), time, status)]
        self.online = online
        return found if online else found + self.gone(time)

    def gone(self, time: int, keep: frozenset[str] = frozenset()) -> list[Reading]:
        """One BadNoCommunication of every signal that had a reading since the last time, but for those in `keep`."""
        known = self._lost | keep
        lost = [what for what, _, _ in self._told.values() if not what.event and what.name not in known]
        self._lost.update(what.name for what in lost)
        return [Reading(what, None, time, BAD_NO_COMMUNICATION) for what in lost]


class DeviceDialect:
    """A dialect of devices; see `Dialect`. A subclass turns one message into readings.

    Attributes:
        counters: named totals; `skipped` are values that have no signal or are none.
        missing: intervals in which messages never came; for a dialect that is a `Keeper`.

    Args:
        config: the `[[source]]` table.
        context: the agent's.
        signals: gives signals their numbers.
        prefix: the template of the topics above the device's own.
        sure: whether a device that publishes at QoS 1 can keep messages while we are away.
    """

    def __init__(
        self, config: MqttConfig, context: SourceContext, signals: Signals, prefix: str, *, sure: bool = True
    ) -> None:
        self.counters: Counter[str] = Counter(skipped=0)
        self.missing: list[Hole] = []
        self._template = TopicTemplate(prefix)
        self._levels = prefix.count("/") + 1
        self._defaults = {"site": context.site, "area": context.area, "line": context.line, "machine": config.machine}
        self._signals = signals
        self._guarantee: Guarantee = config.guarantee if sure and config.session == "persistent" else "from-receipt"
        self._devices: dict[str, Device] = {}

    def readings(self, device: Device, path: str, payload: bytes, arrival: int, *, retained: bool) -> list[Reading]:
        """The readings of one message.

        Args:
            device: who sent it.
            path: its topic below the prefix.
            payload: as it came.
            arrival: the time of arrival, ns.
            retained: an old value, sent again at a subscription.

        Raises:
            Ignored: it has none for us.
            ValueError: it cannot be read.
        """
        raise NotImplementedError

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """As in `Dialect`."""
        device, path = self._find(topic.decode())
        found = self.readings(device, path, payload, arrival, retained=retained)
        guarantee = self._guarantee if qos else "from-receipt"
        numbers = [device.index(each.what, guarantee, self._signals) for each in found]  # all, or none is added
        for index, each in zip(numbers, found, strict=True):
            rows.add(index, each.time, each.value, each.status)
        if device.lost_before:
            for index in set(numbers):
                rows.lose(index, device.lost_before)
            if device.complete_until and found:
                words = f"{device.lost_before} messages of {device.place.machine} never came, as their numbers show"
                end = max(each.time for each in found)
                signals = tuple(sorted(set(numbers)))
                self.missing.append(Hole(signals, device.complete_until, end, "ended", words, device.lost_before))
            device.lost_before = device.complete_until = 0
        device.heard(found)
        return len(found)

    def place_of(self, topic: bytes) -> SignalKey | None:
        """As in `Dialect`: the machine alone."""
        try:
            device, _ = self._find(topic.decode())
        except (Ignored, ValueError):
            return None
        return SignalKey(device.place, "")

    def _find(self, topic: str) -> tuple[Device, str]:
        """The device that a topic names, and the path below.

        Raises:
            Ignored: as in `Router`.
            ValueError: if a level cannot be a name, or there are too many devices.
        """
        parts = topic.split("/", self._levels)
        if len(parts) <= self._levels:
            raise Ignored("unmatched")
        prefix = topic[: len(topic) - len(parts[-1]) - 1]
        device = self._devices.get(prefix)
        if device is None:
            levels = self._template.match(prefix)
            if levels is None:
                raise Ignored("unmatched")
            if any(level.startswith("_") for level in levels.values()):
                raise Ignored("ignored")
            place = Place(**{name: check_name(level, name) for name, level in {**self._defaults, **levels}.items()})
            if len(self._devices) >= _DEVICES_MAX:
                raise ValueError(f"{place.path} would be machine {_DEVICES_MAX + 1} of this source; narrow `topic`")
            device = self._devices[prefix] = self.meet(Device(place), prefix)
        return device, parts[-1]

    def meet(self, device: Device, prefix: str) -> Device:  # noqa: ARG002  # for subclasses
        """A device that was not known before, with the topics above its own."""
        return device

    def numbers(self, found: list[Reading], what: Quantity, raw: Any, time: int, status: int = 0) -> None:
        """Add a reading of a number, or of one written as text; anything else is counted."""
        value = number(raw)
        if value is None:
            self.counters["skipped"] += 1
        else:
            found.append(Reading(what, value, time, status))

    def texts(self, found: list[Reading], what: Quantity, raw: Any, time: int, status: int = 0) -> None:
        """Add a reading of a text; a number becomes one, null is the empty text, anything else is counted."""
        if isinstance(raw, str):
            found.append(Reading(what, raw, time, status))
        elif raw is None:
            found.append(Reading(what, "", time, status))
        elif isinstance(raw, int | float):
            found.append(Reading(what, str(raw), time, status))
        else:
            self.counters["skipped"] += 1


def prefix_of(config: MqttConfig, default: str) -> str:
    """The template of the topics above a device's own: `topic`, or what the dialect's maker made it."""
    return default if config.topic == NATIVE else config.topic.rstrip("/")


def validate_device(config: MqttConfig, context: SourceContext, default: str) -> None:
    """Refuse what makes no sense for a dialect that knows its own payloads.

    Raises:
        ConfigError: with the key within the table.
    """
    for key, made in (("value", "value"), ("values", {}), ("time", "ts"), ("status", "status")):
        if getattr(config, key) != made:
            text = f'says where things are in JSON payloads; format = "{config.format}" knows its own: leave it out'
            raise ConfigError(text, key=key)
    for i, each in enumerate(config.topics):
        if is_shared(each):
            text = "spreads one machine's messages over agents, and they build on one another; leave $share out"
            raise ConfigError(text, key=f"topics[{i}]")
    prefix = prefix_of(config, default)
    if "{signal}" in prefix or "#" in prefix:
        what = f"may not hold {'{signal}' if '{signal}' in prefix else '#'}"
        raise ConfigError(f"{what}: it is what stands above a device's own topics, such as {default!r}", key="topic")
    validate_template(prefix, config, context)


def below(prefix: str, *paths: str) -> tuple[str, ...]:
    """The filters of `paths` below a template."""
    return tuple(f"{TopicTemplate(prefix).filter}/{path}" for path in paths)
