"""The board *Machine*: what one machine does, signal by signal."""

from deploy.grafana.boards.common import CHARTS, MACHINE, choice, findings, from_row, from_series, place, raised, states
from deploy.grafana.builder.influxql import MACHINES, PLACE, chosen, select, tags
from deploy.grafana.builder.panels import ACTIONS, EVENT_FLAGS, table, timeseries
from deploy.grafana.builder.parts import Board, Query

_SIGNALS = chosen(*PLACE, "signal")

_READINGS = timeseries(
    "$signal",
    "The mean in each step of the axis, with the lowest and the highest reading in it: an excursion stays visible "
    "when zoomed out. Limits are in the list of signals below, and on the control charts.",
    Query(
        influxql=select(
            'mean("value") AS "mean", min("value") AS "lowest", max("value") AS "highest"',
            "telemetry",
            where=_SIGNALS,
            group=f"time($__interval), {tags(*PLACE, 'signal')}",
            tail="fill(none)",
        ),
        columns=("mean", "lowest", "highest"),
        alias="$col",
    ),
    width=12,
    height=7,
    no_data="No number from this signal in this time: see the board Data trust",
    repeat="signal",
    overrides={
        name: {"custom.lineWidth": 1, "custom.lineStyle": {"fill": "dot"}, "custom.showPoints": "never"}
        for name in ("lowest", "highest")
    },
    links=(from_series("Its control charts", CHARTS, "signal"),),
)

_NEWEST = table(
    "Newest readings",
    "The newest number of each signal in the shown time; texts are in the list below.",
    Query(
        influxql=select(
            'last("value") AS "value"', "telemetry", where=_SIGNALS, group=tags("machine", "signal"), tail=""
        ),
        columns=("signal", "value"),
        table=True,
    ),
    width=8,
    height=9,
    no_data="No reading in this time",
    hidden=("Time", "time"),
)

_LIMITS = table(
    "Signals: unit, limits and guarantee",
    "What is known of each signal: specification limits LSL and USL, target, and what “nothing lost” can mean for it: "
    "end-to-end (acknowledged source), from-receipt (a push without acknowledgement) or sampled (polled).",
    Query(
        influxql=select(
            'last("unit") AS "unit", last("kind") AS "kind", last("lsl") AS "LSL", last("target") AS "target", '
            'last("usl") AS "USL", last("guarantee") AS "guarantee"',
            "signal",
            where=_SIGNALS,
            group=tags(*PLACE, "signal"),
            timed=False,
        ),
        columns=("signal", "unit", "kind", "LSL", "target", "USL", "guarantee"),
        table=True,
    ),
    width=16,
    height=9,
    no_data="Nothing is known of these signals: the agent writes this when it starts",
    hidden=("Time", "time", "site", "area", "line"),
    links=(from_row("Its control charts", CHARTS, "signal", "signal"),),
)

_TEXTS = table(
    "Texts",
    "What the machine said in words: part ids, programs, tools, jobs. Newest first.",
    Query(
        influxql=select(
            tags("text", "signal", "machine"),
            "telemetry",
            where=f"{MACHINES} AND \"text\" != ''",
            tail="ORDER BY time DESC LIMIT 200",
        ),
        columns=("text", "signal"),
        table=True,
    ),
    width=24,
    height=8,
    no_data="The machine said nothing in words in this time",
)

_EVENTS = table(
    "Alarms and events that the machine reports",
    "OPC UA events, alarms and conditions, newest first. Rows of one condition tell its life: active or not, "
    "acknowledged or not, and whether it still wants attention (retain). Severity: 1 to 1000.",
    Query(
        influxql=select(
            tags(
                *("severity", "message", "source", "kind", "active", "acknowledged", "retain", "condition", "machine"),
            ),
            "event",
            tail="ORDER BY time DESC LIMIT 500",
        ),
        columns=("severity", "message", "source", "kind", "active", "acknowledged", "retain", "condition"),
        table=True,
    ),
    width=24,
    height=9,
    no_data="The machine reported no event in this time: [[source.events]] asks an OPC UA server for them",
    mappings=EVENT_FLAGS,
    colored=("active",),
)

_ACTIONS = table(
    "Actions on this machine",
    "What findings and verdicts asked for, a row each, newest first: done, dry_run (it only looked), refused (by the "
    "machine, or as it came late), limited (too many), failed (not connected), unknown (sent, and no answer came).",
    Query(
        influxql=select(
            tags("outcome", "action", "target", "value", "detail", "trigger", "id", "machine"),
            "action",
            tail="ORDER BY time DESC LIMIT 200",
        ),
        columns=("outcome", "action", "target", "value", "detail", "trigger"),
        table=True,
    ),
    width=24,
    height=7,
    no_data="No action in this time: there are none unless an [[action]] is configured",
    mappings=ACTIONS,
    colored=("outcome",),
    hidden=("id",),
)

BOARD = Board(
    uid=MACHINE,
    title="Machine",
    description="What one machine does: state, every signal, its limits and its findings.",
    variables=(*place(one_machine=True), choice("signal", "telemetry")),
    bands=(
        (states(height=4),),
        (findings("Findings of this machine", "Every revision of every finding, newest first."),),
        (_EVENTS,),
        (_READINGS,),
        (_NEWEST, _LIMITS),
        (_TEXTS,),
        (_ACTIONS,),
    ),
    marks=(raised(),),
    since="now-15m",
)
