"""The format `vda5050`: driverless vehicles (AGV, AMR) that speak VDA 5050."""

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.device import below, prefix_of, validate_device
from edge.sources.mqtt.dialect import Dialect
from edge.sources.mqtt.formats import Format, Signals
from edge.sources.mqtt.vda5050.dialect import VdaDialect

VEHICLE = "uagv/v2/+/{machine}"  # interface, major version, manufacturer, serial number (VDA 5050, MQTT topic levels)


class VdaFormat:
    """The format `vda5050`; see `Format`."""

    def filters(self, config: MqttConfig) -> tuple[str, ...]:
        """As in `Format`: what the vehicle says, not what it is told."""
        return below(prefix_of(config, VEHICLE), "state", "visualization", "connection", "factsheet")

    def validate(self, config: MqttConfig, context: SourceContext) -> None:
        """As in `Format`."""
        validate_device(config, context, VEHICLE)

    def create(self, config: MqttConfig, context: SourceContext, signals: Signals) -> Dialect:
        """As in `Format`."""
        return VdaDialect(config, context, signals, prefix_of(config, VEHICLE))


FORMAT: Format = VdaFormat()
