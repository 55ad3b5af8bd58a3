"""Where readings are kept for people to query. One folder a kind; a kind that is not configured is not imported."""

from importlib import import_module

from ingest.stores.base import StoreKind

_MODULES = {
    "influxdb": "ingest.stores.influxdb",
    "embedded": "ingest.stores.embedded",
    "mqtt": "ingest.stores.mqtt",
}


def known_kinds() -> list[str]:
    """The names that `[[store]] kind` may have."""
    return sorted(_MODULES)


def load_kind(kind: str) -> StoreKind:
    """The kind called `kind`, imported now.

    Raises:
        KeyError: if there is no such kind.
        ModuleNotFoundError: if the extra that it needs is not installed.
    """
    found: StoreKind = import_module(_MODULES[kind]).KIND
    return found
