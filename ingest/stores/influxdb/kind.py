"""Makes and checks stores of kind `influxdb`."""

from fieldlab.errors import ConfigError
from fieldlab.model import SignalTable
from ingest.stores.base import Reader, Store, StoreCheck, StoreContext, StoreError
from ingest.stores.influxdb.config import InfluxConfig, check_config
from ingest.stores.influxdb.guard import ask
from ingest.stores.influxdb.reader import InfluxReader
from ingest.stores.influxdb.store import InfluxStore
from ingest.stores.influxdb.transport import open_transport


class InfluxKind:
    """See `StoreKind`."""

    config = InfluxConfig

    def create(self, config: InfluxConfig, context: StoreContext, signals: SignalTable) -> tuple[Store, Reader | None]:
        """See `StoreKind`."""
        return create_store(config, context, signals), create_reader(config)

    def check(self, config: InfluxConfig, context: StoreContext) -> list[StoreCheck]:  # noqa: ARG002  # protocol
        """See `StoreKind`. A query needs the bucket and the right to read it; the right to write is not tried."""
        try:
            check_config(config)
            open_transport(config).close()
            reader = InfluxReader(config)
            try:
                reader.probe()
            finally:
                reader.close()
            conflicts = ask(config)
        except (ConfigError, StoreError) as e:
            return [StoreCheck(level="fail", text=str(e))]
        if conflicts:
            return [StoreCheck(level="fail", text=f"{config.url}: {words}") for words in conflicts.values()]
        return [StoreCheck(level="ok", text=f"{config.url}: {config.bucket!r} answers queries")]


def create_store(config: InfluxConfig, context: StoreContext, signals: SignalTable) -> InfluxStore:
    """A store that connects when it is first written to.

    Raises:
        ConfigError: if a secret cannot be read, or the table makes no sense as a whole.
    """
    check_config(config)
    return InfluxStore(context.name, config, open_transport(config), signals)


def create_reader(config: InfluxConfig) -> InfluxReader:
    """A reader that connects when it is first asked.

    Raises:
        ConfigError: if the table makes no sense as a whole.
    """
    check_config(config)
    return InfluxReader(config)


KIND = InfluxKind()
