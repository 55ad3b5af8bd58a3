"""The board *3D printers*: heat, flow and progress of additive machines."""

from deploy.grafana.boards.common import MACHINE as MACHINE_BOARD
from deploy.grafana.boards.common import from_series, open_findings, place, raised, states
from deploy.grafana.builder.influxql import MACHINES, PLACE, select, tags
from deploy.grafana.builder.panels import stat, table, timeseries
from deploy.grafana.builder.parts import Board, Panel, Query


def _signal(title: str, description: str, pattern: str, unit: str, no_data: str) -> Panel:
    return timeseries(
        title,
        description,
        Query(
            influxql=select(
                'mean("value") AS "value"',
                "telemetry",
                where=f'{MACHINES} AND "signal" =~ /{pattern}/',
                group=f"time($__interval), {tags(*PLACE, 'signal')}",
                tail="fill(none)",
            ),
            columns=("machine", "signal", "value"),
            alias="$tag_machine $tag_signal",
        ),
        unit=unit,
        no_data=no_data,
        links=(from_series("The machine", MACHINE_BOARD, "signal"),),
    )


_JOB = table(
    "Job",
    "The newest job that each printer named.",
    Query(
        influxql=select(
            'last("text") AS "job"',
            "telemetry",
            where=f'{MACHINES} AND "signal" =~ /^job/',
            group=tags("machine"),
            timed=False,
        ),
        columns=("machine", "job"),
        table=True,
    ),
    width=12,
    height=5,
    no_data="No printer named a job",
    hidden=("Time", "time"),
)

_LAYER = stat(
    "Layer",
    "The layer that each printer is at.",
    Query(
        influxql=select(
            'last("value") AS "layer"', "telemetry", where=f'{MACHINES} AND "signal" =~ /layer/', group=tags("machine")
        ),
        columns=("machine", "layer"),
        alias="$tag_machine",
    ),
    width=12,
    decimals=0,
    no_data="No printer told its layer in this time",
)

BOARD = Board(
    uid="fieldlab-printers",
    title="3D printers",
    description="Additive machines: those that have a signal with nozzle in its name.",
    variables=place(machines_with="nozzle"),
    bands=(
        (_LAYER, _JOB),
        (states(height=4),),
        (
            _signal(
                "Nozzle",
                "Temperature of the nozzle. A slow fall at full power is a heater or a sensor that fails.",
                "nozzle",
                "celsius",
                "No nozzle temperature in this time",
            ),
            _signal(
                "Bed",
                "Temperature of the bed. Parts come loose from a bed that is too cold.",
                "bed",
                "celsius",
                "No bed temperature in this time",
            ),
        ),
        (
            _signal(
                "Flow",
                "Material flow, of what was asked for. Falling flow is a nozzle that clogs.",
                "flow",
                "percent",
                "No flow in this time",
            ),
            _signal(
                "Layers over time",
                "A line that stays level is a print that stands still.",
                "layer",
                "none",
                "No printer told its layer in this time",
            ),
        ),
        (open_findings(height=7),),
    ),
    marks=(raised(),),
    since="now-15m",
)
