"""The format `plain`: the payload is the value, a number, a boolean or text as it stands."""

from typing import Final

import numpy as np

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig, validate_template
from edge.sources.mqtt.dialect import Dialect, Indexer, JsonDialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.payload import UNCERTAIN_LAST_USABLE, JsonPayload, PayloadError
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.topics import TopicTemplate
from fieldlab.errors import ConfigError

_LONGEST: Final = 10_000  # bytes of a text; a longer one is a document
_NO_NUMBER: Final = frozenset(("nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))


class PlainPayload(JsonPayload):
    """Reads payloads that are values: what JSON calls a number, boolean or text is one, and anything else is text."""

    def __init__(self) -> None:
        super().__init__("", "", "")

    def read(self, payload: bytes, signal: int, arrival: int, rows: Rows, *, retained: bool = False) -> int:
        """As in `JsonPayload`."""
        try:
            return super().read(payload, signal, arrival, rows, retained=retained)
        except PayloadError:
            if payload[:1] in (b"{", b"["):
                raise  # a document
        if len(payload) > _LONGEST:
            raise PayloadError(f"a text of {len(payload)} bytes; {_LONGEST} are read")
        try:
            text = payload.decode().strip()
        except UnicodeDecodeError as e:
            raise PayloadError(f"neither a number nor text: {e}") from None
        if not text:
            raise PayloadError("the payload is empty")
        value = np.nan if text.lower() in _NO_NUMBER else text
        rows.add(signal, arrival, value, UNCERTAIN_LAST_USABLE if retained else 0)
        return 1


class PlainDialect(JsonDialect):
    """One signal a topic; see `JsonDialect`."""

    def __init__(self, config: MqttConfig, context: SourceContext, index: Indexer) -> None:
        super().__init__(config, context, index)
        self._payload = PlainPayload()


class PlainFormat:
    """The format `plain`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        return (TopicTemplate(config.topic).filter,)

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        for key, made in (("value", "value"), ("values", {}), ("time", "ts"), ("status", "status")):
            if getattr(config, key) != made:
                text = 'says where things are in JSON payloads; with format = "plain" the payload is the value'
                raise ConfigError(text, key=key)
        if "signal" not in validate_template(config.topic, config, context).levels:
            raise ConfigError("must hold {signal}", key="topic")

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return PlainDialect(config, context, signals.index)


FORMAT: Format = PlainFormat()
