"""The board *Fieldlab*: the hall at a look."""

from deploy.grafana.boards.common import HALL, MACHINE, PARTS, from_row, open_findings, place, raised, states
from deploy.grafana.boards.quality import FIRST, MADE, NOT_PASSED, over_time, yield_
from deploy.grafana.builder.influxql import MACHINES, PLACE, inner, newest_findings, select, tags
from deploy.grafana.builder.panels import GOOD_IS_ZERO, GREEN, RED, stat, table
from deploy.grafana.builder.parts import Board, Query, Threshold

_OPEN = stat(
    "Open alarms",
    "Findings of severity alarm that are raised and that nobody has acknowledged. The list is below.",
    Query(
        influxql=select(
            'count("state") AS "open"', newest_findings(), where="\"state\" = 'raised' AND \"severity\" = 'alarm'"
        ),
        columns=("open",),
    ),
    no_data="None",
    thresholds=GOOD_IS_ZERO,
)

_REPORTING = stat(
    "Machines reporting",
    "Machines with a reading in the last five minutes. Fewer than expected: see the board Data trust.",
    Query(
        influxql=select(
            'count("newest") AS "machines"',
            inner(
                select(
                    'last("value") AS "newest"',
                    "telemetry",
                    where=f"time > now() - 5m AND {MACHINES}",
                    group=tags(*PLACE),
                    timed=False,
                )
            ),
            where="time > now() - 5m",
            timed=False,
        ),
        columns=("machines",),
    ),
    no_data="No machine reports",
    thresholds=(Threshold(None, RED), Threshold(1, GREEN)),
)

_MACHINES = table(
    "Parts by machine",
    "Parts made in the shown time, and how surely bad they are: the mean score runs from 0 (surely good) to 1 (surely "
    "bad). Click a machine to see it, the number made to see its parts.",
    Query(
        influxql=select(
            'count("id") AS "made", mean("score") AS "mean score", max("score") AS "worst score"',
            "part",
            where=FIRST,
            group=tags(*PLACE),
        ),
        columns=("machine", "made", "mean score", "worst score"),
        table=True,
    ),
    width=12,
    height=8,
    no_data="No part was made in this time",
    decimals=2,
    overrides={"made": {"decimals": 0}},
    links=(from_row("The machine", MACHINE, "machine"), from_row("Its parts", PARTS, "made")),
    hidden=("Time", "time"),
)

BOARD = Board(
    uid=HALL,
    title="Fieldlab",
    description="The hall at a look: what machines do, what is wrong now, what was made.",
    variables=place(),
    bands=(
        (_OPEN, _REPORTING, MADE, NOT_PASSED, yield_()),
        (states(),),
        (open_findings(),),
        (_MACHINES, over_time()),
    ),
    marks=(raised(),),
)
