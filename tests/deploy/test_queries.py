"""Every query of every board and alert, on a real influxd with the hall's data: what is needed comes back.

No panel may be empty: the hall ends with an open finding, lost connections and restarts.
"""

import re
import time
from typing import Any

import pytest

from deploy.grafana.alerts import RULES
from deploy.grafana.boards import BOARDS
from deploy.grafana.builder.parts import Board

NOT_ON_V3 = ("INTEGRAL", "SAMPLE", "HOLT_WINTERS", "EXPONENTIAL_MOVING_AVERAGE", "SLIMIT", "SOFFSET", "SHOW SERIES")

NOW = time.time_ns() // 1_000_000  # one time range for all queries, as a board has


def queries() -> list[Any]:
    """(board, where, query, columns) of every panel and mark."""
    found = []
    for board in BOARDS:
        for panel in board.panels():
            for i, query in enumerate(panel.queries):
                name = f"{board.title}/{panel.title}/{i}"
                found.append(pytest.param(board, (board.title, panel.title), query.influxql, query.columns, id=name))
        for mark in board.marks:
            name = f"{board.title}/{mark.name}"
            found.append(pytest.param(board, (board.title, mark.name), mark.influxql, mark.columns, id=name))
    return found


def substitute(influxql: str, values: dict[str, str]) -> str:
    """What Grafana makes of a query, from its documentation: the time, the interval, and formats `regex` and `raw`."""

    def value(match: re.Match[str]) -> str:
        name, form = match.groups()
        chosen = values.get(name, "" if name == "part" else ".*")
        return re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", chosen) if form == "regex" and chosen != ".*" else chosen

    text = influxql.replace("$timeFilter", f"time >= {NOW - 900_000}ms and time <= {NOW + 7_200_000}ms")
    text = text.replace("$__interval", "1s")
    text = re.sub(r"\$\{(\w+):(\w+)\}", value, text)
    assert "$" not in text.replace("$/", "/"), f"a variable that nothing replaces: {text}"
    return text


def needed(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> list[str]:
    """The columns of which no row has a value."""
    return [name for name in columns if all(row.get(name) is None for row in rows)]


@pytest.mark.parametrize(("board", "where", "influxql", "columns"), queries())
def test_panels(hall: Any, board: Board, where: tuple[str, str], influxql: str, columns: tuple[str, ...]) -> None:
    rows = hall.query(substitute(influxql, {}))
    assert rows, f"{where}: nothing for {influxql}"
    assert needed(rows, columns) == [], rows[:2]


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.title)
def test_variables(hall: Any, board: Board) -> None:
    """Each variable has values, also when everything before it is narrowed to one value."""
    values: dict[str, str] = {}
    for variable in board.variables:
        if variable.query:
            found = [row["value"] for row in hall.query(substitute(variable.query, values))]
            assert found, f"{board.title}: {variable.name} has no value, narrowed to {values}"
            values[variable.name] = found[0]


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.title)
def test_one_choice(hall: Any, board: Board) -> None:
    """With one value chosen in every variable, every query still runs, and shows nothing of other machines."""
    values: dict[str, str] = {}
    for variable in board.variables:
        if variable.query:
            values[variable.name] = hall.query(substitute(variable.query, values))[-1]["value"]
    for panel in board.panels():
        for query in panel.queries:
            rows = hall.query(substitute(query.influxql, values))
            assert {row["machine"] for row in rows if "machine" in row} <= {values.get("machine")}, query.influxql


def test_one_part_or_tool(hall: Any) -> None:
    """The choice of a part takes its id, as links give it, and what it consumed, literally."""
    board = next(b for b in BOARDS if b.title == "Parts")
    panels = {p.title: p.queries[0].influxql for p in board.panels()}

    def ids(panel: str, part: str) -> set[str]:
        return {row["id"] for row in hall.query(substitute(panels[panel], {"part": part}))}

    assert ids("Verdicts", "cnc-07-000012") == {"cnc-07-000012"}
    assert ids("History", "cnc-07-000012") == {"cnc-07-000012"}
    assert {i.rpartition("-")[0] for i in ids("Genealogy", "T01")} == {"cnc-07"}
    assert ids("Genealogy", "shaver-cap.gcode") == {i for i in ids("Genealogy", "") if i.startswith("printer-02")}
    assert ids("Verdicts", "cnc.07/(") == set()


def test_verdicts_add_up(hall: Any) -> None:
    """Pass, suspect and fail are all parts made; Grafana divides two counts that have one time."""
    board = next(b for b in BOARDS if b.title == "Parts")
    counts: dict[str, dict[str, Any]] = {}
    for panel in board.panels()[:3]:
        for query in panel.queries:
            (counts[query.columns[0]],) = hall.query(substitute(query.influxql, {}))
    assert counts["made"]["made"] == sum(counts[v][v] for v in ("pass", "suspect", "fail")) > 100
    assert counts["pass"]["time"] == counts["made"]["time"]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.uid)
def test_alerts(hall: Any, rule: Any) -> None:
    """Each alert's query gives a series with the labels that its text uses, and numbers to compare."""
    assert "$" not in rule.influxql + rule.summary + rule.action  # Grafana would take it for a variable in a file
    rows = hall.query(rule.influxql)
    assert needed(rows, rule.columns) == []
    assert set(re.findall(r"\.Labels\.(\w+)", rule.summary)) <= set(rows[0])
    assert {type(row[rule.columns[-1]]) for row in rows} <= {int, float}


def test_alerts_tell_good_from_bad(hall: Any) -> None:
    """The hall ended with an open finding, lost connections and unreachable sources; nothing overflowed."""

    def firing(uid: str) -> set[str]:
        rule = next(r for r in RULES if r.uid == uid)
        newest: dict[str, float] = {}
        for row in hall.query(rule.influxql):
            newest[row.get("machine") or row["agent"]] = row[rule.columns[-1]]
        return {
            name for name, v in newest.items() if (v > rule.threshold if rule.compare == "gt" else v < rule.threshold)
        }

    machines = {"cnc-07", "robot-03", "printer-02"}
    assert "printer-02" in firing("fieldlab-finding")
    assert firing("fieldlab-connection") == machines
    assert firing("fieldlab-source") == {"demo"}
    assert firing("fieldlab-loss") == set()
    assert firing("fieldlab-silence") == set()  # production ended seconds ago
    assert firing("fieldlab-agent") == set()


def test_nothing_outside_the_common_subset() -> None:
    every = [p.values[2] for p in queries()] + [r.influxql for r in RULES]
    every += [v.query for b in BOARDS for v in b.variables]
    assert len(every) > 60
    assert [q for q in every if any(re.search(rf"\b{word}\b", q, re.IGNORECASE) for word in NOT_ON_V3)] == []
