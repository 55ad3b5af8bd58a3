"""Tries a proposed source on the messages that were kept: what it reads is what an agent with it would read."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig, validate
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.discovery.heard import Message
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.rows import Rows, Scalar
from fieldlab.model import Guarantee, SignalInfo, SignalKey, SignalTable
from fieldlab.model.signal import TooManySignalsError


class Found(msgspec.Struct):
    """One signal that was read.

    Attributes:
        key: which.
        info: what its source said of it, or None.
        kinds: the types of its values.
        value: the newest.
        topics: where it came from.
    """

    key: SignalKey
    info: SignalInfo | None = None
    kinds: set[type] = set()
    value: Scalar = None
    topics: set[str] = set()


class _Noting(Rows):
    """Rows that note each value, with its type, by the number of its signal."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: dict[int, list[Scalar]] = {}

    def add(self, signal: int, time: int, value: Scalar, status: int) -> None:
        """As in `Rows`."""
        self.noted.setdefault(signal, []).append(value)
        super().add(signal, time, value, status)

    def extend(
        self, signal: Sequence[int] | int, time: Any, value: Sequence[Scalar], status: Sequence[int] | int
    ) -> None:
        """As in `Rows`."""
        for i, each in enumerate(value):
            self.noted.setdefault(signal if isinstance(signal, int) else signal[i], []).append(each)
        super().extend(signal, time, value, status)


class Replay:
    """A dialect, made from the keys that would be printed, and what it makes of messages.

    Attributes:
        signals: what was read.
        errors: topic → why a message of it would be set aside; the last reason.
        read: topic → readings.

    Args:
        keys: of the `[[source]]`.
        context: as of an agent.

    Raises:
        ConfigError: if the keys make no sense.
    """

    def __init__(self, keys: dict[str, Any], context: SourceContext) -> None:
        made: dict[str, Any] = {key: tuple(each) if key == "topics" else each for key, each in keys.items()}
        config = MqttConfig(**made)
        validate(config, context)
        self.signals: dict[SignalKey, Found] = {}
        self.errors: dict[str, str] = {}
        self.read: dict[str, int] = {}
        self._table = SignalTable()
        self._dialect = dialect_of(config, context, self)

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:  # noqa: ARG002  # as in Signals
        """As in `Signals`."""
        self._found(info.key).info = info
        return self._table.index(info.key)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:  # noqa: ARG002  # as in Signals
        """As in `Signals`."""
        self._found(key)
        return self._table.index(key)

    def _found(self, key: SignalKey) -> Found:
        found = self.signals.get(key)
        if found is None:
            found = self.signals[key] = Found(key, kinds=set(), topics=set())
        return found

    def play(self, messages: Iterable[Message]) -> None:
        """Read messages, in their order."""
        for each in messages:
            rows = _Noting()
            try:
                added = self._dialect.read(
                    each.topic.encode(errors="replace"), each.payload, each.arrival, rows, retained=each.retained, qos=1
                )
            except Ignored:
                continue
            except (ValueError, TooManySignalsError) as e:
                self.errors[each.topic] = str(e)
                continue
            self.read[each.topic] = self.read.get(each.topic, 0) + added
            for number, values in rows.noted.items():
                found = self._found(self._table[number])
                found.topics.add(each.topic)
                found.kinds.update(map(type, values))
                found.value = values[-1]
