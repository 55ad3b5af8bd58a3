"""Refuses an agent that would read what it publishes: every reading would come back, and go out again, for ever."""

from typing import Protocol, runtime_checkable

import msgspec

from edge.sources import load_kind as load_source
from fieldlab.config import Document
from fieldlab.errors import ConfigError
from ingest.stores import load_kind as load_store

_HERE = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}
Topics = tuple[tuple[str, int], tuple[str, ...]]
"""A broker, by host and port, and MQTT filters there."""


class Table(Protocol):
    """One `[[source]]` or `[[store]]`."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def config(self) -> msgspec.Struct:
        """Its own struct."""

    @property
    def key(self) -> str:
        """Where it stands in the file."""


@runtime_checkable
class Publishing(Protocol):
    """A kind of store that publishes readings through a broker."""

    def published(self, config: msgspec.Struct, agent: str) -> Topics | None:
        """Where, and on what topics; None if it publishes none."""
        ...


@runtime_checkable
class Subscribing(Protocol):
    """A kind of source that reads from a broker."""

    def subscribed(self, config: msgspec.Struct) -> Topics | None:
        """Where, and which topics; None if its table makes no sense."""
        ...


def refuse_loops(document: Document, agent: str, stores: tuple[Table, ...], sources: tuple[Table, ...]) -> None:
    """Compare what the stores publish with what the sources subscribe to.

    Raises:
        ConfigError: naming file, line and key of the store, and the source.
    """
    for store in stores:
        kind = load_store(store.kind)
        if not isinstance(kind, Publishing) or (told := kind.published(store.config, agent)) is None:
            continue
        for source in sources:
            reader = load_source(source.kind)
            if not isinstance(reader, Subscribing) or (heard := reader.subscribed(source.config)) is None:
                continue
            if _same(told[0], heard[0]):
                _refuse(document, store, source, told[1], heard[1])


def _refuse(document: Document, store: Table, source: Table, told: tuple[str, ...], heard: tuple[str, ...]) -> None:
    for mine in told:
        for theirs in heard:
            if overlap(mine, theirs):
                line = document.line(f"{source.key}.topics")
                raise ConfigError(
                    f"publishes readings on {mine!r}, and {source.key} (line {line}) subscribes to {theirs!r} at the"
                    " same broker: every reading would come back for ever. Publish below another root (`prefix`),"
                    " choose other `signals`, or narrow the `topics` of the source",
                    file=document.path,
                    line=document.line(store.key),
                    key=store.key,
                )


def _same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether both are one broker, as far as their names tell."""
    return _HERE.get(one[0], one[0]) == _HERE.get(other[0], other[0]) and one[1] == other[1]


def overlap(one: str, other: str) -> bool:
    """Whether there is a topic that both filters take (MQTT 5, section 4.7)."""
    levels, others = one.split("/"), other.split("/")
    if levels[0].startswith("$") != others[0].startswith("$"):
        return False  # a wildcard never takes a topic of the broker's own
    for i in range(max(len(levels), len(others)) + 1):
        mine = levels[i] if i < len(levels) else None
        theirs = others[i] if i < len(others) else None
        if "#" in (mine, theirs):
            return True  # also of the level above
        if mine is None or theirs is None:
            return mine is theirs
        if mine != theirs and "+" not in (mine, theirs):
            return False
    return True
