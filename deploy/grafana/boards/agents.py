"""The board *Agents*: how the agents themselves are."""

from deploy.grafana.builder.influxql import chosen, select, tag_values, tags
from deploy.grafana.builder.panels import GREEN, RED, stat, table, timeseries
from deploy.grafana.builder.parts import Board, Panel, Query, Threshold, Variable

_THESE = chosen("agent")
_STEP = f"time($__interval), {tags('agent')}"


def _figure(title: str, description: str, field: str, unit: str) -> Panel:
    return timeseries(
        title,
        description,
        Query(
            influxql=select(f'last("{field}") AS "{field}"', "agent", where=_THESE, group=_STEP, tail="fill(none)"),
            columns=("agent", field),
            alias="$tag_agent",
        ),
        unit=unit,
        no_data="No agent reported in this time",
        custom={"axisSoftMin": 0},
    )


_AWAY = stat(
    "Sources not connected",
    "Sources that an agent cannot reach, by its newest report.",
    Query(
        influxql=select(
            'last("sources") - last("sources_connected") AS "away"', "agent", where=_THESE, group=tags("agent")
        ),
        columns=("agent", "away"),
        alias="$tag_agent",
    ),
    width=12,
    decimals=0,
    no_data="No agent reported in this time",
    thresholds=(Threshold(None, GREEN), Threshold(1, RED)),
)

_NEWEST = table(
    "Agents",
    "The newest report of each agent. Agents report every ten seconds.",
    Query(
        influxql=select(
            'last("uptime_seconds") AS "up", last("memory_bytes") AS "memory", last("journal_bytes") AS "journal", '
            'last("sources_connected") AS "connected", last("sources") AS "sources"',
            "agent",
            where=_THESE,
            group=tags("agent"),
        ),
        columns=("agent", "up", "memory", "journal", "connected", "sources"),
        table=True,
    ),
    width=12,
    height=5,
    no_data="No agent reported in this time",
    overrides={"up": {"unit": "s"}, "memory": {"unit": "bytes"}, "journal": {"unit": "bytes"}},
    hidden=("Time", "time"),
)

BOARD = Board(
    uid="fieldlab-agents",
    title="Agents",
    description="The edge agents: memory, journal, connections and restarts.",
    variables=(Variable(name="agent", label="Agent", query=tag_values("agent", "agent")),),
    bands=(
        (_AWAY, _NEWEST),
        (
            _figure("Memory", "Memory that the agent's process holds.", "memory_bytes", "bytes"),
            _figure("Uptime", "A line that falls to zero is a restart.", "uptime_seconds", "s"),
        ),
        (
            _figure(
                "Journal on disk",
                "It grows while a store is away and shrinks when it has caught up. At its cap the agent does what "
                "`when_full` says.",
                "journal_bytes",
                "bytes",
            ),
            _figure("Records in the journal", "Records that a consumer may still need.", "journal_records", "none"),
        ),
    ),
)
