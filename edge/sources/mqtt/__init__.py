"""Reads machines through an MQTT broker: QoS 1, persistent session, acknowledged after the commit."""

import msgspec

from edge.sources.base import CheckLine, Sink, Source, SourceContext, SourceKind
from edge.sources.mqtt.check import check
from edge.sources.mqtt.config import MqttConfig, filters_of, parse_url
from edge.sources.mqtt.source import MqttSource
from edge.sources.mqtt.topics import plain_filter
from fieldlab.errors import ConfigError


class MqttKind:
    """The kind `mqtt`; see `edge.sources.base.SourceKind`."""

    config: type[msgspec.Struct] = MqttConfig

    def create(self, config: MqttConfig, context: SourceContext, sink: Sink) -> Source:
        """A source, not yet connected.

        Raises:
            ConfigError: if the table makes no sense as a whole.
        """
        return MqttSource(config, context, sink)

    async def check(self, config: MqttConfig, context: SourceContext) -> list[CheckLine]:
        """Try the broker and its topics with a session of its own."""
        return await check(config, context)

    def subscribed(self, config: MqttConfig) -> tuple[tuple[str, int], tuple[str, ...]] | None:
        """See `edge.loops`."""
        try:
            broker = parse_url(config.url)
            return (broker.host, broker.port), tuple(map(plain_filter, filters_of(config)))
        except (ConfigError, KeyError, ValueError):  # `create` says what is wrong
            return None


KIND: SourceKind = MqttKind()
