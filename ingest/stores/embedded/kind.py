"""Makes and checks stores of kind `embedded`."""

import os
from pathlib import Path

from fieldlab.errors import ConfigError
from fieldlab.model import SignalTable
from ingest.stores.base import Reader, Store, StoreCheck, StoreContext, StoreError
from ingest.stores.embedded.config import EmbeddedConfig
from ingest.stores.embedded.database import Database
from ingest.stores.embedded.reader import EmbeddedReader
from ingest.stores.embedded.store import EmbeddedStore

FILE = "embedded.duckdb"


class EmbeddedKind:
    """See `StoreKind`."""

    config = EmbeddedConfig

    def create(
        self, config: EmbeddedConfig, context: StoreContext, signals: SignalTable
    ) -> tuple[Store, Reader | None]:
        """See `StoreKind`. Store and reader share one open file."""
        database = open_database(config, context)
        return EmbeddedStore(context.name, config, database, signals), EmbeddedReader(database)

    def check(self, config: EmbeddedConfig, context: StoreContext) -> list[StoreCheck]:
        """See `StoreKind`. Opens no file: an agent may have it open."""
        try:
            _check_config(config)
        except ConfigError as e:
            return [StoreCheck(level="fail", text=str(e))]
        file = context.data / FILE
        folder = next(parent for parent in (context.data, *context.data.parents) if parent.exists())
        if not os.access(file if file.exists() else folder, os.W_OK):
            return [StoreCheck(level="fail", text=f"{file} cannot be written: give this user the right to write there")]
        return [StoreCheck(level="ok", text=f"{file} can be written; kept for {config.retention / 86400:g} days")]


def open_database(config: EmbeddedConfig, context: StoreContext) -> Database:
    """The file of this agent, opened.

    Raises:
        ConfigError: if the table makes no sense as a whole.
        StoreMisconfiguredError: if another process has it open, or it is damaged.
    """
    _check_config(config)
    return Database(Path(context.data) / FILE, config)


def create_reader(config: EmbeddedConfig, context: StoreContext) -> tuple[Reader, Database]:
    """A reader of the file while no agent runs; close the database after use.

    Raises:
        ConfigError: if the table makes no sense as a whole.
        StoreError: if there is no file, or an agent has it open.
    """
    if not (context.data / FILE).exists():
        raise StoreError(f"{context.data / FILE} does not exist: no agent has stored anything there")
    database = open_database(config, context)
    return EmbeddedReader(database), database


def _check_config(config: EmbeddedConfig) -> None:
    if config.memory < 16 * 10**6:
        raise ConfigError("must be at least 16MB", key="memory")
    if not 1 <= config.threads <= 64:
        raise ConfigError("must be 1 to 64", key="threads")
    if config.retention <= 0:
        raise ConfigError("must be longer than nothing", key="retention")


KIND = EmbeddedKind()
