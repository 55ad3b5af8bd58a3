"""What a payload dialect is, and the first: JSON under an ISA-95 topic. Other formats become modules beside it."""

from typing import Any, Protocol

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig, filters_of
from edge.sources.mqtt.payload import JsonPayload
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.topics import TopicTemplate, matches
from fieldlab.model import Guarantee, Place, SignalKey
from fieldlab.model.place import check_name

_ROUTES_MAX = 100_000  # topics remembered; beyond them all are looked up anew, so that memory stays bounded


class Ignored(Exception):  # noqa: N818  # an answer, not an error
    """A message that is not for us; `reason` is one of `ignored`, `unmatched`: the name of its counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Indexer(Protocol):
    """Gives the index of a signal; see `Sink.index`."""

    def __call__(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        """The index of `key`."""
        ...


class Dialect(Protocol):
    """Turns messages into readings. One dialect belongs to one source and is used by one thread.

    It may have `counters`, a dict of named totals that `status` shows beside those of the source.
    """

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """Add the readings of one message to `rows`; if it raises, none was added.

        Returns:
            How many were added.

        Raises:
            Ignored: the message is not for us.
            ValueError: it cannot be read; the text is the reason in the dead letter.
            TooManySignalsError: it names a new signal, and the agent has as many as it may.
        """
        ...

    def place_of(self, topic: bytes) -> SignalKey | None:
        """The signal that a topic names, for the dead letter; None if it names none."""
        ...


class BulkDialect(Dialect, Protocol):
    """A dialect that also reads many messages at once."""

    def read_run(
        self, topics: list[bytes], payloads: list[bytes], arrival: int, rows: Rows, starts: list[int], *, qos: int
    ) -> int:
        """Read messages from the first on, none of them retained, until one that only `read` can.

        Args:
            topics: of the messages.
            payloads: of the messages.
            arrival: when the first arrived, ns; each later one a nanosecond later.
            rows: where the readings go, one or more a message.
            starts: where the row goes at which each message starts.
            qos: of all of them.

        Returns:
            How many were read; 0 if the first must be read alone; -1 if fewer must be tried.
        """
        ...


class JsonDialect:
    """One signal a topic, its value, time and status in JSON."""

    def __init__(self, config: MqttConfig, context: SourceContext, index: Indexer) -> None:
        self._router = Router(config, context)
        self._payload = JsonPayload(config.value, config.time, config.status)
        self._index = index
        self._guarantee: Guarantee = config.guarantee if config.session == "persistent" else "from-receipt"
        self._routes: dict[bytes, tuple[int, Guarantee] | str] = {}
        self._known: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})  # by QoS: signals that need no new guarantee

    def read_run(
        self, topics: list[bytes], payloads: list[bytes], arrival: int, rows: Rows, starts: list[int], *, qos: int
    ) -> int:
        """As in `BulkDialect`."""
        shape = self._payload.shape
        if shape is None:
            return 0
        signals: list[Any] = list(map(self._known[qos].get, topics))
        if None in signals:
            first = signals.index(None)
            if first == 0:
                return 0
            signals, payloads = signals[:first], payloads[:first]
        return shape.read(payloads, signals, arrival, rows, starts)

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """As in `Dialect`."""
        route = self._routes.get(topic)
        if route is None:
            route = self._find(topic, qos)
        if isinstance(route, str):
            raise Ignored(route)
        if qos != 1 and route[1] != "from-receipt":  # once is enough to know that the publisher does not make sure
            route = self._remember(topic, self._router.key(topic.decode()), "from-receipt")
        return self._payload.read(payload, route[0], arrival, rows, retained=retained)

    def place_of(self, topic: bytes) -> SignalKey | None:
        """As in `Dialect`."""
        try:
            return self._router.key(topic.decode())
        except (Ignored, ValueError):
            return None

    def _find(self, topic: bytes, qos: int) -> tuple[int, Guarantee] | str:
        """Look a topic up, and remember the answer.

        Raises:
            ValueError: if a level cannot be a name.
            TooManySignalsError: if it is new and one too many.
        """
        try:
            key = self._router.key(topic.decode())
        except Ignored as e:
            self._store(topic, e.reason)
            return e.reason
        return self._remember(topic, key, self._guarantee if qos == 1 else "from-receipt")

    def _remember(self, topic: bytes, key: SignalKey, guarantee: Guarantee) -> tuple[int, Guarantee]:
        route = (self._index(key, guarantee), guarantee)
        self._store(topic, route)
        return route

    def _store(self, topic: bytes, route: tuple[int, Guarantee] | str) -> None:
        if len(self._routes) >= _ROUTES_MAX:
            for each in (self._routes, *self._known):
                each.clear()
        self._routes[topic] = route
        if not isinstance(route, str):
            self._known[1][topic] = route[0]
            if route[1] == "from-receipt":
                self._known[0][topic] = route[0]


class Router:
    """Topic → signal, by the template, with what the topic does not name taken from the configuration."""

    def __init__(self, config: MqttConfig, context: SourceContext) -> None:
        self._template = TopicTemplate(config.topic)
        self._filters = filters_of(config)
        self._defaults = {"site": context.site, "area": context.area, "line": context.line, "machine": config.machine}

    def key(self, topic: str) -> SignalKey:
        """The signal that `topic` names, as `find`."""
        return SignalKey(*self.find(topic))

    def find(self, topic: str) -> tuple[Place, str]:
        """The machine that `topic` names, and the signal; empty if the template has none.

        Raises:
            Ignored: `unmatched` if it does not fit the template or no filter takes it; `ignored` if a name in it
                starts with `_`.
            ValueError: if a level cannot be a name.
        """
        found = self._template.match(topic)
        if found is None or not any(matches(each, topic) for each in self._filters):
            raise Ignored("unmatched")
        if any(level.startswith("_") for level in found.values()):
            raise Ignored("ignored")
        names = {level: check_name(name, level) for level, name in {**self._defaults, **found}.items()}
        signal = names.pop("signal", "")
        return Place(**names), signal
