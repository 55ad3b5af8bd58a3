"""What several boards share: the choice of machines, links between boards, the list of findings."""

from deploy.grafana.builder.influxql import MACHINES, PLACE, chosen, newest_findings, select, tag_values, tags
from deploy.grafana.builder.panels import FINDINGS, STATES, table, timeline
from deploy.grafana.builder.parts import Link, Mark, Panel, Query, Variable

HALL, MACHINE, CHARTS, PARTS = "fieldlab-hall", "fieldlab-machine", "fieldlab-charts", "fieldlab-parts"

_LABELS = {"site": "Site", "area": "Area", "line": "Line", "machine": "Machine", "signal": "Signal", "chart": "Chart"}


def place(*, one_machine: bool = False, machines_with: str = "") -> tuple[Variable, ...]:
    """Site, area, line and machine, each narrowed by the ones before it.

    Args:
        one_machine: one machine at a time.
        machines_with: only machines that have a signal of which this is a regular expression.
    """
    found = []
    for i, key in enumerate(PLACE):
        conditions = [chosen(*PLACE[:i])] if i else []
        if key == "machine" and machines_with:
            conditions.append(f'"signal" =~ /{machines_with}/')
        query = tag_values(key, "telemetry", *conditions)
        several = not (one_machine and key == "machine")
        found.append(Variable(name=key, label=_LABELS[key], query=query, several=several))
    return tuple(found)


def choice(key: str, measurement: str, *narrowed_by: str, several: bool = True) -> Variable:
    """A choice of signals or charts of the chosen machines."""
    query = tag_values(key, measurement, chosen(*PLACE, *narrowed_by))
    return Variable(name=key, label=_LABELS[key], query=query, several=several)


def _url(board: str, names: dict[str, str], source: str) -> str:
    chosen_values = "&".join(f"var-{variable}=${{{source}.{name}:percentencode}}" for variable, name in names.items())
    return f"/d/{board}?${{__url_time_range}}&{chosen_values}"


def from_row(title: str, board: str, field: str, *more: str, **renamed: str) -> Link:
    """A link in the column `field` of a table, with the place, and with `more` columns, as the board's variables."""
    names = {name: name for name in (*PLACE, *more)} | renamed
    return Link(title, _url(board, names, "__data.fields"), field)


def from_series(title: str, board: str, *more: str) -> Link:
    """A link of a series, with the place, and with `more` tags, as the board's variables."""
    return Link(title, _url(board, {name: name for name in (*PLACE, *more)}, "__field.labels"))


FINDING_LINKS = (
    from_row("Its control chart", CHARTS, "chart", "signal", "chart"),
    from_row("The part", PARTS, "part", part="part"),
    from_row("The machine", MACHINE, "machine"),
)
"""From a finding to its chart, its part and its machine."""

_FINDING_COLUMNS = ("machine", "signal", "chart", "state", "severity", "part", "detail")


def open_findings(*, where: str = MACHINES, height: int = 9) -> Panel:
    """The findings that nobody has cleared."""
    fields = tags("state", "severity", "machine", "signal", "chart", "part", "statistic", "limit", "detail", "id")
    fields += f", {tags('site', 'area', 'line')}"
    query = select(fields, newest_findings(where=where), where="\"state\" != 'cleared'", tail="ORDER BY time DESC")
    return table(
        "Open findings",
        "Excursions that have not ended, newest revision of each. Click the chart to see it, the part to see what "
        "was made meanwhile, the machine to see what it does. Findings raised before the shown time are left out: "
        "widen it to see all.",
        Query(influxql=query, columns=_FINDING_COLUMNS, table=True),
        width=24,
        height=height,
        no_data="No open finding",
        mappings=FINDINGS,
        colored=("state",),
        hidden=("id", "site", "area", "line"),
        links=FINDING_LINKS,
    )


def findings(title: str, description: str, *, where: str = MACHINES) -> Panel:
    """Every revision of every finding, newest first."""
    fields = tags("state", "severity", "machine", "signal", "chart", "rule", "part", "statistic", "limit")
    fields += f", {tags('limits_version', 'revision', 'detail', 'id', 'site', 'area', 'line')}"
    query = select(fields, "finding", where=where, tail="ORDER BY time DESC LIMIT 500")
    return table(
        title,
        description,
        Query(influxql=query, columns=(*_FINDING_COLUMNS, "rule", "revision", "limits_version"), table=True),
        width=24,
        height=9,
        no_data="No finding in this time",
        mappings=FINDINGS,
        colored=("state",),
        hidden=("id", "site", "area", "line"),
        links=FINDING_LINKS,
    )


def states(*, width: int = 24, height: int = 6) -> Panel:
    """What each machine did, over time."""
    query = select(
        'last("state") AS "state"', "machine_state", group=f"time($__interval), {tags(*PLACE)}", tail="fill(none)"
    )
    return timeline(
        "What the machines did",
        "The state that each machine reports. Zoomed out, a bar shows the last state in it.",
        Query(influxql=query, columns=("machine", "state"), alias="$tag_machine"),
        width=width,
        height=height,
        mappings=STATES,
        no_data="No machine changed its state in this time",
        links=(from_series("The machine", MACHINE),),
    )


def raised(*, where: str = MACHINES) -> Mark:
    """A mark where a finding was raised."""
    query = select(tags("detail", "rule", "machine"), "finding", where=f"{where} AND \"state\" = 'raised'")
    return Mark(
        name="Findings raised",
        influxql=query,
        columns=("detail", "rule", "machine"),
        text="detail",
        tags="machine,rule",
        color="red",
    )
