"""The board *Control charts*: the statistic, its centre and its limits, and where it broke a rule."""

from deploy.grafana.boards.common import CHARTS, MACHINE, choice, findings, from_series, place, raised
from deploy.grafana.builder.influxql import PLACE, chosen, select, tags
from deploy.grafana.builder.panels import RED, stat, table, timeseries
from deploy.grafana.builder.parts import Board, Query

_THESE = chosen(*PLACE, "signal", "chart")
_STEP = f"time($__interval), {tags(*PLACE, 'signal', 'chart')}"
_DASHED = {"custom.lineStyle": {"fill": "dash", "dash": [10, 6]}, "custom.lineWidth": 1, "custom.showPoints": "never"}
_RED = {"color": {"mode": "fixed", "fixedColor": RED}}

_CHART = timeseries(
    "$chart",
    "The charted statistic with its centre line and control limits (UCL, LCL): limits are those in force at that "
    "time. A red dot is where a finding was raised. A process out of its limits has changed: look for the cause "
    "before the next part. Limits are not specifications.",
    Query(
        influxql=select(
            'mean("statistic") AS "statistic", last("center") AS "centre", last("ucl") AS "UCL", last("lcl") AS "LCL"',
            "chart",
            where=_THESE,
            group=_STEP,
            tail="fill(none)",
        ),
        columns=("statistic", "centre", "UCL", "LCL"),
        alias="$col",
    ),
    Query(
        influxql=select(
            'last("statistic") AS "finding"',
            "finding",
            where=f"{_THESE} AND \"state\" = 'raised'",
            group=_STEP,
            tail="fill(none)",
        ),
        columns=("finding",),
        alias="$col",
    ),
    width=12,
    height=9,
    no_data="No point in this time: the chart is learning its limits, or no part was made",
    repeat="chart",
    links=(from_series("The machine", MACHINE),),
    overrides={
        "centre": _DASHED | {"color": {"mode": "fixed", "fixedColor": "text"}},
        "UCL": _DASHED | _RED,
        "LCL": _DASHED | _RED,
        "finding": _RED | {"custom.drawStyle": "points", "custom.pointSize": 12},
    },
)

_LIMITS = table(
    "Limits in force",
    "The newest centre line and limits of each chart, with the version of the limits: a new version means that they "
    "were learned or frozen anew.",
    Query(
        influxql=select(
            'last("limits_version") AS "version", last("lcl") AS "LCL", last("center") AS "centre", '
            'last("ucl") AS "UCL"',
            "chart",
            where=_THESE,
            group=tags(*PLACE, "signal", "chart"),
        ),
        columns=("machine", "signal", "chart", "version", "LCL", "centre", "UCL"),
        table=True,
    ),
    width=12,
    no_data="No chart has limits in this time",
    hidden=("Time", "time", "site", "area", "line"),
)

_VERSIONS = timeseries(
    "Version of the limits",
    "A step up is where a chart's limits were replaced: points before and after it are judged by different limits.",
    Query(
        influxql=select('max("limits_version") AS "version"', "chart", where=_THESE, group=_STEP, tail="fill(none)"),
        columns=("chart", "version"),
        alias="$tag_chart",
    ),
    width=12,
    no_data="No chart has limits in this time",
    decimals=0,
    custom={"lineInterpolation": "stepAfter"},
)

_RULES = table(
    "Findings by rule",
    "How often each rule has fired in the shown time. Many by one rule on one chart: the process has changed for good, "
    "or the limits were learned from too little.",
    Query(
        influxql=select(
            'count("id") AS "raised"',
            "finding",
            where=f"{_THESE} AND \"state\" = 'raised'",
            group=tags("machine", "signal", "chart", "rule"),
        ),
        columns=("machine", "signal", "chart", "rule", "raised"),
        table=True,
    ),
    width=16,
    height=7,
    no_data="No rule fired in this time",
    hidden=("Time", "time"),
)

_COUNT = stat(
    "Findings raised",
    "Findings that the chosen charts raised in the shown time.",
    Query(
        influxql=select('count("id") AS "raised"', "finding", where=f"{_THESE} AND \"state\" = 'raised'"),
        columns=("raised",),
    ),
    calc="sum",
    width=8,
    height=7,
    decimals=0,
    no_data="None",
)

BOARD = Board(
    uid=CHARTS,
    title="Control charts",
    description="The statistic, centre and limits of every chart, and the rules that were broken (ISO 7870).",
    variables=(
        *place(),
        choice("signal", "chart"),
        choice("chart", "chart", "signal"),
    ),
    bands=(
        (_CHART,),
        (_COUNT, _RULES),
        (_LIMITS, _VERSIONS),
        (findings("Findings of these charts", "Every revision of every finding, newest first.", where=_THESE),),
    ),
    marks=(raised(where=_THESE),),
    since="now-15m",
)
