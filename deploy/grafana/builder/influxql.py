"""InfluxQL in the subset that InfluxDB 1.x, 2.x and 3 Core share.

Not in it, so never written here: INTEGRAL, SAMPLE, HOLT_WINTERS, EXPONENTIAL_MOVING_AVERAGE, SLIMIT, SHOW SERIES.
`${name:regex}` is Grafana's own format of a variable: escaped, several values as `(a|b)`, all values as `.*`.
"""

PLACE = ("site", "area", "line", "machine")
"""The tags that every measurement of a machine begins with (ISA-95)."""

BAD_NO_COMMUNICATION = 0x80310000
"""The OPC UA status that a reading has when its machine's connection was lost."""


def chosen(*variables: str) -> str:
    """The condition that each tag has one of the values chosen in the variable of its name."""
    return " AND ".join(f'"{name}" =~ /^${{{name}:regex}}$/' for name in variables)


MACHINES = chosen(*PLACE)


def tags(*names: str) -> str:
    """Names as a list of identifiers."""
    return ", ".join(f'"{name}"' for name in names)


def select(
    fields: str, source: str, *, where: str = MACHINES, group: str = "", tail: str = "", timed: bool = True
) -> str:
    """A query on one measurement, or on a subquery in parentheses.

    Args:
        fields: what is selected.
        source: a measurement's name, or `(SELECT …)`.
        where: the condition, without the time.
        group: what is grouped by.
        tail: what follows, such as `fill(none)` or `ORDER BY time DESC`.
        timed: within the time that the board shows; False: ever.
    """
    source = source if source.startswith("(") else f'"{source}"'
    conditions = " AND ".join(c for c in ("$timeFilter" if timed else "", where) if c)
    query = f"SELECT {fields} FROM {source}"  # noqa: S608  every word is ours
    query += f" WHERE {conditions}" if conditions else ""
    query += f" GROUP BY {group}" if group else ""
    return f"{query} {tail}".rstrip()


def inner(query: str) -> str:
    """A query as the source of another."""
    return f"({query})"


def newest_findings(*, where: str = MACHINES, time: str = "$timeFilter") -> str:
    """A subquery with the newest revision of the findings of each chart: a chart has one open finding a signal."""
    fields = ", ".join(
        ['last("state") AS "state"']
        + [f'"{name}" AS "{name}"' for name in ("severity", "id", "part", "statistic", "limit", "detail")]
    )
    condition = f"{time} AND {where}" if where else time
    group = tags(*PLACE, "signal", "chart")
    return inner(select(fields, "finding", where=condition, group=group, timed=False))


def tag_values(key: str, measurement: str, *where: str) -> str:
    """The values of a tag, narrowed by conditions."""
    query = f'SHOW TAG VALUES FROM "{measurement}" WITH KEY = "{key}"'
    return f"{query} WHERE {' AND '.join(where)}" if where else query
