"""The format `bambu`: Bambu Lab printers in the local network; each is its own broker."""

from edge.sources.base import SourceContext
from edge.sources.mqtt.bambu.dialect import BambuDialect
from edge.sources.mqtt.config import MqttConfig, filters_of
from edge.sources.mqtt.device import below, prefix_of, validate_device
from edge.sources.mqtt.dialect import Dialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.topics import matches
from fieldlab.errors import ConfigError

DEVICE = "device/{machine}"  # the machine is the serial number, unless `topic` holds that and `machine` a better name


class BambuFormat:
    """The format `bambu`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`."""
        return below(prefix_of(config, DEVICE), "report")

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`: to subscribe to the requests makes some printers end the session."""
        validate_device(config, context, DEVICE)
        request = below(prefix_of(config, DEVICE), "request")[0].replace("+", "x")
        for i, each in enumerate(filters_of(config)):
            if matches(each, request):
                text = "would subscribe to the printer's requests, which ends the session of some; end it with /report"
                raise ConfigError(text, key=f"topics[{i}]")

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return BambuDialect(config, context, signals, prefix_of(config, DEVICE))


FORMAT: Format = BambuFormat()
