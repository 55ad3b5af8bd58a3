"""Reads machines through an MQTT broker: QoS 1, persistent session, acknowledged after the commit."""

import msgspec

from edge.sources.base import CheckLine, Sink, Source, SourceContext, SourceKind
from edge.sources.mqtt.check import check
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.source import MqttSource


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


KIND: SourceKind = MqttKind()
