"""The format `moonraker`: Klipper printers, by Moonraker's `[mqtt]` section."""

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.device import below, prefix_of, validate_device
from edge.sources.mqtt.dialect import Dialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.moonraker.dialect import MoonrakerDialect

INSTANCE = "{machine}"  # Moonraker's `instance_name`; its default is the host's name


class MoonrakerFormat:
    """The format `moonraker`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        return below(prefix_of(config, INSTANCE), "klipper/status", "klipper/state/+/+", "moonraker/status")

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        validate_device(config, context, INSTANCE)

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return MoonrakerDialect(config, context, signals, prefix_of(config, INSTANCE))


FORMAT: Format = MoonrakerFormat()
