"""Makes and checks stores of kind `mqtt`."""

from fieldlab.errors import ConfigError
from fieldlab.model import SignalTable
from fieldlab.secrets import read_secret
from ingest.stores.base import Reader, Store, StoreCheck, StoreContext
from ingest.stores.mqtt.check import check
from ingest.stores.mqtt.config import MqttConfig, broker, published
from ingest.stores.mqtt.node_store import NodeStore
from ingest.stores.mqtt.store import MqttStore


class MqttKind:
    """See `StoreKind`."""

    config = MqttConfig

    def create(
        self,
        config: MqttConfig,
        context: StoreContext,
        signals: SignalTable,
    ) -> tuple[Store, Reader | None]:
        """See `StoreKind`. It cannot be queried."""
        broker(config)
        if config.password_file:
            read_secret(config.password_file)
        client_id = config.client_id or f"{context.agent}-{context.name}"
        if config.format == "sparkplug":
            node = config.sparkplug.node or context.agent
            return NodeStore(context.name, client_id, node, config, signals, context.data), None
        return MqttStore(context.name, client_id, config, signals), None

    def check(self, config: MqttConfig, context: StoreContext) -> list[StoreCheck]:
        """See `StoreKind`. Connects with a client id of its own."""
        return check(config, context)

    def published(self, config: MqttConfig, agent: str) -> tuple[tuple[str, int], tuple[str, ...]] | None:
        """Broker and topics of the readings, for who must not read them; None if it publishes none."""
        try:
            host, port, _ = broker(config)
        except ConfigError:  # `create` says what is wrong
            return None
        found = published(config, agent)
        return ((host, port), found) if found else None


KIND = MqttKind()
