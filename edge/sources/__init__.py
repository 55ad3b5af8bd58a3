"""Readers of machines, one folder a kind. A kind that is not configured is not imported."""

from importlib import import_module

from edge.sources.base import SourceKind

_MODULES = {"opcua": "edge.sources.opcua", "mqtt": "edge.sources.mqtt", "replay": "edge.sources.replay"}


def known_kinds() -> list[str]:
    """The names that `[[source]] kind` may have."""
    return sorted(_MODULES)


def load_kind(kind: str) -> SourceKind:
    """The kind called `kind`, imported now.

    Raises:
        KeyError: if there is no such kind.
    """
    found: SourceKind = import_module(_MODULES[kind]).KIND
    return found
