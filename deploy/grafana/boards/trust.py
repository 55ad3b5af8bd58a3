"""The board *Data trust*: how far the data can be relied on, signal by signal."""

from deploy.grafana.boards.common import MACHINE, from_row, from_series, place
from deploy.grafana.builder.influxql import BAD_NO_COMMUNICATION, MACHINES, PLACE, inner, select, tags
from deploy.grafana.builder.panels import GOOD_IS_ZERO, stat, table, timeseries
from deploy.grafana.builder.parts import Board, Json, Panel, Query

_SIGNAL = tags(*PLACE, "signal", "agent")
_COUNTS = ("received", "committed", "stored", "bad", "overflow", "duplicate", "dead")


def _sum_of_newest(value: str, name: str) -> str:
    newest = select(f'{value} AS "newest"', "ledger", group=_SIGNAL)
    return select(f'sum("newest") AS "{name}"', inner(newest), where="")


def _total(title: str, description: str, value: str, *, zero: bool = False) -> Panel:
    more: Json = {"thresholds": GOOD_IS_ZERO} if zero else {}
    return stat(
        title,
        description,
        Query(influxql=_sum_of_newest(value, "total"), columns=("total",)),
        unit="short",
        decimals=0,
        no_data="No ledger in this time",
        **more,
    )


_LEDGER = table(
    "Ledger",
    "Totals of each signal since its agent's journal began, at its newest row in the shown time: received from the "
    "source, committed to disk, stored by the first store, of Bad status, overflowed before they reached us, "
    "duplicates that were recognised, dead-lettered (refused by a store for good). Rows are written once a minute "
    "for signals that have changed. What a zero can mean is in the list of guarantees below.",
    Query(
        influxql=select(
            ", ".join(f'last("{name}") AS "{name}"' for name in _COUNTS), "ledger", group=tags(*PLACE, "signal")
        ),
        columns=("machine", "signal", *_COUNTS),
        table=True,
    ),
    width=24,
    height=11,
    no_data="No ledger in this time: agents write it once a minute for signals that have changed",
    hidden=("Time", "time", "site", "area", "line"),
    links=(from_row("The machine", MACHINE, "machine", "signal"),),
)

_RATE = timeseries(
    "Readings committed a second",
    "From the ledger, machine by machine. A line that falls to zero is a machine that has gone silent.",
    Query(
        influxql=select(
            'sum("rate") AS "rate"',
            inner(
                select(
                    'non_negative_derivative(last("committed"), 1s) AS "rate"',
                    "ledger",
                    group=f"time($__interval), {tags(*PLACE, 'signal')}",
                    tail="fill(none)",
                )
            ),
            where="",
            group=f"time($__interval), {tags(*PLACE)}",
            tail="fill(none)",
        ),
        columns=("machine", "rate"),
        alias="$tag_machine",
    ),
    unit="cps",
    no_data="Needs two ledger rows of a signal: agents write one a minute",
    links=(from_series("The machine", MACHINE),),
)

_BAD = timeseries(
    "Readings that are not Good",
    "How many readings had a status other than Good. A Bad reading has no value; it never reuses an old one.",
    Query(
        influxql=select(
            'count("status") AS "not good"', "telemetry", group='time($__interval), "machine"', tail="fill(none)"
        ),
        columns=("machine", "not good"),
        alias="$tag_machine",
    ),
    bars=True,
    no_data="Every reading was Good",
)

_LOST_CONNECTION = table(
    "Connections lost",
    "When the connection to a machine was lost, each of its signals gets one point without a value at that time "
    "(BadNoCommunication).",
    Query(
        influxql=select(
            'count("status") AS "signals", last("status") AS "status"',
            "telemetry",
            where=f'{MACHINES} AND "status" = {BAD_NO_COMMUNICATION}',
            group=f"time($__interval), {tags('machine')}",
            tail="fill(none)",
        ),
        columns=("machine", "signals"),
        table=True,
    ),
    width=24,
    height=6,
    no_data="No connection was lost in this time",
    hidden=("status",),
)

_SILENT = table(
    "Newest number of each signal",
    "When the newest number of each signal came. Signals that only report changes may be silent for good reasons; a "
    "machine of which every signal is old is not.",
    Query(
        influxql=select(
            tags("value", "machine", "signal"),
            inner(select('last("value") AS "value"', "telemetry", group=tags("machine", "signal"))),
            where="",
            tail="ORDER BY time ASC",
        ),
        columns=("time", "machine", "signal", "value"),
        table=True,
    ),
    width=12,
    no_data="No number in this time",
    overrides={"Time": {"unit": "dateTimeFromNow", "displayName": "newest"}},
)

_GUARANTEES = table(
    "What “nothing lost” can mean",
    "end-to-end: the source is told only after a reading is on disk. from-receipt: what reached us is kept. sampled: "
    "what happened between two polls is not seen.",
    Query(
        influxql=select('last("guarantee") AS "guarantee"', "signal", group=tags("machine", "signal"), timed=False),
        columns=("machine", "signal", "guarantee"),
        table=True,
    ),
    width=12,
    no_data="No signal is known",
    hidden=("Time", "time"),
)

BOARD = Board(
    uid="fieldlab-trust",
    title="Data trust",
    description="How far the data can be relied on: the ledger, statuses, and what has gone silent.",
    variables=place(),
    bands=(
        (
            _total("Received", "Readings that reached the agents, since their journals began.", 'last("received")'),
            _total("Committed", "Readings that are on the agents' disks.", 'last("committed")'),
            _total("Stored", "Readings that the first store has acknowledged.", 'last("stored")'),
            _total(
                "Waiting",
                "Committed, and not yet acknowledged by the first store when the ledger row was written. Some are "
                "always on their way; a number that grows is a store that is slow or away.",
                'last("committed") - last("stored")',
            ),
            _total(
                "Overflowed",
                "Readings that the source's own queue lost before they reached us.",
                'last("overflow")',
                zero=True,
            ),
            _total(
                "Dead letters",
                "Readings that a store refused for good. They are kept: see `fieldlab deadletter list`.",
                'last("dead")',
                zero=True,
            ),
        ),
        (_LEDGER,),
        (_RATE, _BAD),
        (_LOST_CONNECTION,),
        (_SILENT, _GUARANTEES),
    ),
    since="now-6h",
)
