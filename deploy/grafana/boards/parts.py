"""The board *Parts*: verdicts with their reasons, and what each part is made of."""

from deploy.grafana.boards.common import MACHINE, PARTS, from_row, place, raised
from deploy.grafana.boards.quality import MADE, NOT_PASSED, over_time, yield_
from deploy.grafana.builder.influxql import MACHINES, select, tags
from deploy.grafana.builder.panels import AMBER, GREEN, RED, VERDICTS, table, timeseries
from deploy.grafana.builder.parts import Board, Query, Threshold, Variable

_ID = f'{MACHINES} AND "id" =~ /.*${{part:regex}}/'
_ID_OR_OTHER = f'{MACHINES} AND ("id" =~ /.*${{part:regex}}/ OR "other" =~ /.*${{part:regex}}/)'
_LINKS = (from_row("Only this part", PARTS, "id", part="id"), from_row("The machine", MACHINE, "machine"))

_VERDICTS = table(
    "Verdicts",
    "The verdict on each part with its reasons, most important first, what was measured on it and what rode along. A "
    "revision above 1 is a verdict that a later measurement has changed; the earlier one stays in the list.",
    Query(
        influxql=select(
            tags("id", "verdict", "score", "reasons", "machine", "revision", "genealogy", "features")
            + f", {tags('site', 'area', 'line')}",
            "part",
            where=_ID,
            tail="ORDER BY time DESC LIMIT 500",
        ),
        columns=("id", "verdict", "score", "reasons", "machine", "revision", "genealogy", "features"),
        table=True,
    ),
    width=24,
    height=11,
    decimals=2,
    no_data="No part with this id in this time",
    mappings=VERDICTS,
    colored=("verdict",),
    overrides={"reasons": {"custom.width": 480}, "revision": {"decimals": 0}},
    hidden=("site", "area", "line"),
    links=_LINKS,
)

_SUSPECT = table(
    "Not passed",
    "Parts whose verdict is suspect or fail: hold them until someone has looked.",
    Query(
        influxql=select(
            tags("id", "verdict", "reasons", "machine", "site", "area", "line"),
            "part",
            where=f"{_ID} AND \"verdict\" != 'pass'",
            tail="ORDER BY time DESC LIMIT 500",
        ),
        columns=("id", "verdict", "reasons", "machine"),
        table=True,
    ),
    width=24,
    no_data="Every part passed",
    mappings=VERDICTS,
    colored=("verdict",),
    overrides={"reasons": {"custom.width": 640}},
    hidden=("site", "area", "line"),
    links=_LINKS,
)

_SCORE = timeseries(
    "Score",
    "How surely bad the parts are, from 0 (surely good) to 1 (surely bad): the worst part in each step.",
    Query(
        influxql=select(
            'max("score") AS "score"', "part", where=_ID, group='time($__interval), "machine"', tail="fill(none)"
        ),
        columns=("machine", "score"),
        alias="$tag_machine",
    ),
    no_data="No part with this id in this time",
    decimals=2,
    thresholds=(Threshold(None, GREEN), Threshold(0.5, AMBER), Threshold(1, RED)),
    custom={"axisSoftMin": 0, "axisSoftMax": 1},
)

_GENEALOGY = table(
    "Genealogy",
    "What each part consumed: tools, material lots, jobs, child parts. Type a lot or tool in Part above to find every "
    "part that has it.",
    Query(
        influxql=select(
            tags("id", "other", "text", "machine", "site", "area", "line"),
            "part_event",
            where=f"{_ID_OR_OTHER} AND \"event\" = 'consume'",
            tail="ORDER BY time DESC LIMIT 500",
        ),
        columns=("id", "other", "text", "machine"),
        table=True,
    ),
    width=12,
    height=9,
    no_data="Nothing is known of what these parts consumed",
    overrides={"other": {"displayName": "consumed"}, "text": {"displayName": "what it is"}},
    hidden=("site", "area", "line"),
    links=_LINKS,
)

_EVENTS = table(
    "History",
    "Everything that happened to the parts: start, end, consume, and what inspection adds. Newest first.",
    Query(
        influxql=select(
            tags("event", "id", "other", "text", "machine", "site", "area", "line"),
            "part_event",
            where=_ID_OR_OTHER,
            tail="ORDER BY time DESC LIMIT 500",
        ),
        columns=("event", "id", "other", "text", "machine"),
        table=True,
    ),
    width=12,
    height=9,
    no_data="Nothing happened to parts with this id in this time",
    hidden=("site", "area", "line"),
    links=_LINKS,
)

BOARD = Board(
    uid=PARTS,
    title="Parts",
    description="What was made: verdicts with their reasons, and the genealogy of each part.",
    variables=(*place(), Variable(name="part", label="Part, tool or lot (or a piece of its name)")),
    bands=(
        (MADE, NOT_PASSED, yield_()),
        (_SUSPECT,),
        (_VERDICTS,),
        (_GENEALOGY, _EVENTS),
        (over_time(), _SCORE),
    ),
    marks=(raised(),),
)
