"""Several signals a topic: JSON payloads whose values are found by `values`."""

from typing import Any

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig, validate_template
from edge.sources.mqtt.dialect import Dialect, Ignored, Indexer, JsonDialect, Router
from edge.sources.mqtt.fields import Fields, FieldsError
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.payload import PayloadError, decode, time_and_status
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.topics import TopicTemplate
from fieldlab.errors import ConfigError
from fieldlab.model import Guarantee, Place, SignalKey

_ROUTES_MAX = 100_000  # topics, and names, remembered


class MultiDialect:
    """The dialect `json` with `values`; see `Dialect`.

    Attributes:
        fields: finds the values; counts what it passes over.
    """

    def __init__(self, config: MqttConfig, context: SourceContext, index: Indexer) -> None:
        self.fields = Fields(config.values)
        self._router = Router(config, context)
        self._time, self._status = config.time, config.status
        self._index = index
        self._guarantee: Guarantee = config.guarantee if config.session == "persistent" else "from-receipt"
        self._routes: dict[bytes, tuple[Place, str] | str] = {}
        self._known: dict[tuple[bytes, str, Guarantee], int] = {}

    @property
    def counters(self) -> dict[str, int]:
        """Named totals, beside those of every source."""
        return {"skipped": self.fields.skipped}

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """As in `Dialect`."""
        route = self._routes.get(topic)
        if route is None:
            route = self._find(topic)
        if isinstance(route, str):
            raise Ignored(route)
        document = decode(payload)
        if type(document) not in (dict, list):
            raise PayloadError("the payload is no object and no array; `values` has nothing to find in it")
        time, status = time_and_status(document, self._time, self._status, arrival, retained=retained)
        found = self.fields.find(document)
        guarantee = self._guarantee if qos == 1 else "from-receipt"
        signals = [self._signal(topic, route, name, guarantee) for name, _ in found]  # all, or none is added
        for signal, (_, value) in zip(signals, found, strict=True):
            rows.add(signal, time, value, status)
        return len(found)

    def place_of(self, topic: bytes) -> SignalKey | None:
        """As in `Dialect`."""
        try:
            return self._router.key(topic.decode())
        except (Ignored, ValueError):
            return None

    def _find(self, topic: bytes) -> tuple[Place, str] | str:
        found: tuple[Place, str] | str
        try:
            found = self._router.find(topic.decode())
        except Ignored as e:
            found = e.reason
        if len(self._routes) >= _ROUTES_MAX:
            self._routes.clear()
        self._routes[topic] = found
        return found

    def _signal(self, topic: bytes, route: tuple[Place, str], name: str, guarantee: Guarantee) -> int:
        """The index of a signal; a guarantee is told once, and a weaker one holds."""
        known = self._known.get((topic, name, guarantee))
        if known is None:
            place, above = route
            known = self._index(SignalKey(place, f"{above}.{name}" if above else name), guarantee)
            if len(self._known) >= _ROUTES_MAX:
                self._known.clear()
            self._known[topic, name, guarantee] = known
        return known


def dialect_of(config: MqttConfig, context: SourceContext, index: Indexer) -> Dialect:
    """The dialect that a configuration asks for."""
    made: Any = MultiDialect if config.values else JsonDialect
    dialect: Dialect = made(config, context, index)
    return dialect


class JsonFormat:
    """The format `json`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        return (TopicTemplate(config.topic).filter,)

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        template = validate_template(config.topic, config, context)
        if "signal" not in template.levels and not config.values:
            raise ConfigError("must hold {signal}, or write `values` if payloads name the signals", key="topic")
        if config.values:
            try:
                Fields(config.values)
            except FieldsError as e:
                raise ConfigError(str(e), key="values") from None
            if config.value != "value":
                raise ConfigError("cannot stand beside `values`; write one of them", key="value")

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return dialect_of(config, context, signals.index)


FORMAT: Format = JsonFormat()
