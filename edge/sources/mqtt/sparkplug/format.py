"""The format `sparkplug` of the MQTT source."""

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import NATIVE, MqttConfig, validate_template
from edge.sources.mqtt.dialect import Dialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.sparkplug.host import HostDialect, topic_of
from edge.sources.mqtt.sparkplug.naming import NAMESPACE
from edge.sources.mqtt.topics import is_shared
from fieldlab.errors import ConfigError


class SparkplugFormat:
    """See `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        del config
        return (f"{NAMESPACE}/#",)

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        if config.topic != NATIVE and not config.topic.startswith(f"{NAMESPACE}/"):
            raise ConfigError(
                f"must begin with {NAMESPACE}/, as in {NAMESPACE}/{{area}}/+/{{line}}/{{machine}}", key="topic"
            )
        template = validate_template(topic_of(config), config, context)
        if "signal" in template.levels:
            raise ConfigError("may not hold {signal}: metrics name the signals", key="topic")
        if config.values:
            raise ConfigError('belongs to format = "json"; Sparkplug payloads name their metrics', key="values")
        for i, each in enumerate(config.topics):
            if is_shared(each):
                raise ConfigError(
                    "a host application must see every message; a shared subscription splits them", key=f"topics[{i}]"
                )
        host = config.sparkplug.host_id or context.agent
        if any(each in host for each in "/+#"):
            raise ConfigError(f"{host!r} may not hold / + or #; write `host_id`", key="sparkplug.host_id")
        for key in ("reorder", "patience"):
            if not 0 < getattr(config.sparkplug, key) <= 3600:
                raise ConfigError("must be more than 0s, and 1h at most", key=f"sparkplug.{key}")

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return HostDialect(config, context, signals)


FORMAT: Format = SparkplugFormat()
