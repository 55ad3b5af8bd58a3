"""The board *Robots*: joints, cycle time and accuracy of robots."""

from deploy.grafana.boards.common import MACHINE as MACHINE_BOARD
from deploy.grafana.boards.common import from_series, open_findings, place, raised, states
from deploy.grafana.builder.influxql import MACHINES, PLACE, select, tags
from deploy.grafana.builder.panels import timeseries
from deploy.grafana.builder.parts import Board, Panel, Query


def _signal(title: str, description: str, pattern: str, unit: str, no_data: str, value: str = "mean") -> Panel:
    return timeseries(
        title,
        description,
        Query(
            influxql=select(
                f'{value}("value") AS "value"',
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


BOARD = Board(
    uid="fieldlab-robots",
    title="Robots",
    description="Robots: those machines that have a signal with joint in its name.",
    variables=place(machines_with="joint"),
    bands=(
        (states(height=4),),
        (
            _signal(
                "Joint currents",
                "Mean motor current of each joint. One joint that rises while the others stay: friction, or a load "
                "that slips.",
                "joint.*current",
                "amp",
                "No joint current in this time",
            ),
            _signal(
                "Joint temperatures",
                "Motor temperature of each joint. Look at the limits on the board Machine.",
                "joint.*temperature",
                "celsius",
                "No joint temperature in this time",
            ),
        ),
        (
            _signal(
                "Cycle time",
                "The time that a cycle takes. A longer one is a robot that waits, or a program that was changed.",
                "cycle_time",
                "s",
                "No cycle time in this time",
            ),
            _signal(
                "Position error",
                "How far the tool was from where it should be, as the robot reports it; the mean in each step.",
                "position_error",
                "lengthmm",
                "No position error in this time",
            ),
        ),
        (open_findings(height=7),),
    ),
    marks=(raised(),),
    since="now-15m",
)
