"""The format `octoprint`: printers behind OctoPrint, by its MQTT plugin."""

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.device import below, prefix_of, validate_device
from edge.sources.mqtt.dialect import Dialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.octoprint.dialect import OctoPrintDialect

BASE = "octoPrint"  # the plugin's default base topic


class OctoPrintFormat:
    """The format `octoprint`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        return below(prefix_of(config, BASE), "event/+", "progress/printing", "temperature/+", "mqtt")

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        validate_device(config, context, BASE)

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return OctoPrintDialect(config, context, signals, prefix_of(config, BASE))


FORMAT: Format = OctoPrintFormat()
