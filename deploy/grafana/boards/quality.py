"""Panels about parts made and their verdicts; the hall and the board of parts share them.

Parts are counted by their first verdict (revision 1): a later revision is another row of the same part.
"""

from deploy.grafana.builder.influxql import MACHINES, select
from deploy.grafana.builder.panels import GREEN, RED, VERDICTS, stat, timeseries
from deploy.grafana.builder.parts import Panel, Query, Threshold

FIRST = f'{MACHINES} AND "revision" = 1'


def counted(name: str, verdict: str = "", *, group: str = "", tail: str = "") -> Query:
    """How many parts there are, or how many with one verdict."""
    where = f"{FIRST} AND \"verdict\" = '{verdict}'" if verdict else FIRST
    return Query(
        influxql=select(f'count("id") AS "{name}"', "part", where=where, group=group, tail=tail),
        columns=(name,),
        alias="$col",
    )


MADE = stat(
    "Parts made",
    "Parts that ended in the shown time, by their part id.",
    counted("made"),
    calc="sum",
    no_data="None made",
    decimals=0,
)

NOT_PASSED = stat(
    "Suspect and fail",
    "Parts whose first verdict is not pass: suspect parts were made during an excursion, fail parts broke a "
    "specification limit. Hold them until someone has looked.",
    counted("suspect", "suspect"),
    counted("fail", "fail"),
    calc="sum",
    width=6,
    no_data="None",
    decimals=0,
    thresholds=(Threshold(None, GREEN), Threshold(1, RED)),
    text_mode="value_and_name",
)


def yield_() -> Panel:
    """Pass over made. InfluxQL cannot divide the two counts, so Grafana does."""
    return stat(
        "First-pass yield",
        "Parts whose first verdict is pass, of all parts made in the shown time.",
        counted("pass", "pass"),
        counted("made"),
        width=6,
        unit="percentunit",
        decimals=1,
        no_data="No part was made in this time",
        fields="/^yield$/",
        thresholds=(Threshold(None, RED), Threshold(0.95, "orange"), Threshold(0.99, GREEN)),
        transformations=(
            ("joinByField", {"byField": "Time", "mode": "outer"}),
            (
                "calculateField",
                {
                    "alias": "yield",
                    "mode": "binary",
                    "binary": {"left": "pass", "operator": "/", "right": "made"},
                    "replaceFields": True,
                },
            ),
        ),
    )


def over_time() -> Panel:
    """Parts by verdict."""
    queries = [counted(v, v, group="time($__interval)", tail="fill(none)") for v, _ in VERDICTS]
    return timeseries(
        "Parts over time",
        "Parts by the time at which they ended and by their first verdict.",
        *queries,
        bars=True,
        width=12,
        no_data="No part was made in this time",
        axis="parts",
        decimals=0,
        overrides={v: {"color": {"mode": "fixed", "fixedColor": color}} for v, color in VERDICTS},
    )
