"""The parts that boards are built from."""

from typing import Any, Literal

import msgspec

DATA_SOURCE = {"type": "influxdb", "uid": "fieldlab"}
"""Where every query goes: the data source that provisioning and `boards push` make."""

Json = dict[str, Any]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One InfluxQL query of a panel.

    Attributes:
        influxql: the query, with Grafana's variables.
        columns: the columns, or tags grouped by, that the panel cannot do without.
        alias: the name of a series; `$tag_x` is a tag, `$col` the column.
        table: whether the panel wants rows rather than series.
    """

    influxql: str
    columns: tuple[str, ...]
    alias: str = ""
    table: bool = False


class Threshold(msgspec.Struct, frozen=True):
    """From `value` on (None: from the lowest), `color`."""

    value: float | None
    color: str


class Link(msgspec.Struct, frozen=True):
    """A link of one column or series to another board."""

    title: str
    url: str
    field: str = ""


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """One panel.

    Attributes:
        kind: the panel plugin.
        title: what it shows.
        description: how to read it, and what to do.
        queries: what it asks.
        width: of 24 columns.
        height: in rows of 30 pixels.
        unit: a unit identifier of Grafana.
        no_data: what it says when a query gives nothing.
        thresholds: colours by value.
        mappings: colours by text.
        links: from its columns or series.
        overrides: settings of single columns: name → property → value.
        options: settings of the plugin.
        custom: settings of the plugin, a column.
        transformations: what Grafana does to the answers.
        decimals: shown; None: as many as it needs.
        repeat: the variable for each of whose values the panel is repeated.
    """

    kind: Literal["stat", "timeseries", "table", "state-timeline"]
    title: str
    description: str
    queries: tuple[Query, ...]
    width: int = 12
    height: int = 8
    unit: str = "none"
    no_data: str
    thresholds: tuple[Threshold, ...] = (Threshold(None, "text"),)
    mappings: tuple[tuple[str, str], ...] = ()
    links: tuple[Link, ...] = ()
    overrides: dict[str, Json] = {}
    options: Json = {}
    custom: Json = {}
    transformations: tuple[tuple[str, Json], ...] = ()
    decimals: int | None = None
    repeat: str = ""


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A choice at the top of a board; without a query a text that people type.

    Attributes:
        name: as queries call it.
        label: as people read it.
        query: gives the values.
        several: whether several values, or all, may be chosen.
    """

    name: str
    label: str
    query: str = ""
    several: bool = True


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Events drawn across the time axis of every panel: a query with a text and tags."""

    name: str
    influxql: str
    columns: tuple[str, ...]
    text: str
    tags: str
    color: str


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """One board: panels left to right, a tuple a band."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    bands: tuple[tuple[Panel, ...], ...]
    marks: tuple[Mark, ...] = ()
    since: str = "now-1h"

    def panels(self) -> tuple[Panel, ...]:
        """All panels, in reading order."""
        return tuple(panel for band in self.bands for panel in band)
