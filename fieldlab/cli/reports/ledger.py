"""What came, what became of it, what may be missing and why, and whether it adds up."""

from typing import Any

from fieldlab.cli.common import ask_agent
from fieldlab.cli.tables import Page, Table, counted, moment, span

HELP = "what came, what became of it, what may be missing and why; exit status 1 if it does not add up"

_BECAME = ("stored", "dead", "dropped", "waiting")


def collect(config: Any, since: int) -> dict[str, Any]:
    """See `fieldlab.cli.report.Report`."""
    found: dict[str, Any] | None = ask_agent(config.agent.data, f"/ledger?since={since}")
    if found is None:
        from edge.accounts import without_agent

        found = without_agent(config, since)
    return found


def is_fine(data: dict[str, Any]) -> bool:
    """Whether every count adds up. Gaps are no fault of the ledger: it shows them."""
    return bool(data["holds"])


def page(data: dict[str, Any]) -> Page:
    """See `fieldlab.cli.report.Report`."""
    totals = data["totals"]
    held = {fault.split(":")[0] for fault in data["faults"]}
    lines = [
        f"at {moment(data['time'])}, journal position {data['position']}; counts since the journal began",
        f"received {totals['received']} = {counted([(n, totals[n]) for n in ('committed', 'duplicate', 'rejected')])}",
        *(_store_line(store, totals["committed"]) for store in data["stores"]),
        "every signal adds up"
        if data["holds"]
        else f"{len(held)} {'signal DOES' if len(held) == 1 else 'signals DO'} NOT ADD UP",
    ]
    if totals["rejected_input"]:
        unread = totals["rejected_input"]
        lines.append(f"{unread} inputs that could not be read and are of no signal known: `fieldlab deadletter list`")
    return Page(
        f"Ledger of agent {data['agent']}",
        lines,
        data["faults"],
        [_signals(data), _gaps(data), *([_folded(data)] if data["gaps_folded"] else [])],
    )


def _store_line(store: dict[str, Any], committed: int) -> str:
    before = [("before it was there", store["before"])] if store["before"] else []
    left = [("left out", store["left_out"])] if store["left_out"] else []
    return f"{store['name']}: committed {committed} = {counted([*((n, store[n]) for n in _BECAME), *left, *before])}"


def _signals(data: dict[str, Any]) -> Table:
    names = ("received", "committed", "duplicate", "rejected", "bad", "overflow")
    first = data["stores"][0]["name"] if data["stores"] else "no store"
    kept = any("in_store" in row for row in data["signals"])
    columns = ["signal", "guarantee", *(f"#{n}" for n in (*names, *_BECAME)), *(["#in store"] if kept else []), "lost"]
    rows = []
    for row in data["signals"]:
        store = row["stores"][0] if row["stores"] else dict.fromkeys(_BECAME, 0)
        loss = row["loss"] + (f" ({span(row['gap_seconds'])})" if row["gaps_not_closed"] else "")
        cells = [row["path"], row["guarantee"], *(row[n] for n in names), *(store[n] for n in _BECAME)]
        rows.append((*cells, *([row.get("in_store", "")] if kept else []), loss))
    return Table(f"Signals ({len(rows)}); stored, dead, dropped, waiting: of {first}", tuple(columns), rows)


def _gaps(data: dict[str, Any]) -> Table:
    columns = ("signal", "cause", "start", "end", "#lasted", "state", "#recovered", "#lost", "at", "detail")
    rows: list[tuple[object, ...]] = []
    for gap in data["gaps"]:
        end = gap["end"] or data["time"]
        rows.append(
            (
                gap["path"], gap["cause"].replace("_", " "), moment(gap["start"]),
                moment(gap["end"]) if gap["state"] != "open" else "-", span(max(0, end - gap["start"]) / 1e9),
                gap["state"], gap["recovered"], gap["lost"] or "", gap["source"], gap["detail"],
            )
        )  # fmt: skip
    when = f" since {moment(data['since'])}" if data["since"] else ""
    left = data["gaps_in_report"] - len(rows)
    more = f"; {left} older ones are left out" if left > 0 else ""
    return Table(f"Gaps{when} ({data['gaps_in_report']}): readings may be missing in between{more}", columns, rows)


def _folded(data: dict[str, Any]) -> Table:
    columns = ("signal", "cause", "state", "#gaps", "#lasted", "#recovered", "#lost")
    rows: list[tuple[object, ...]] = [
        (
            f["path"], f["cause"].replace("_", " "), f["state"], f["gaps"], span(f["seconds"]), f["recovered"],
            f["lost"] or "",
        )
        for f in data["gaps_folded"]
    ]  # fmt: skip
    return Table("Older gaps, of which only the sums are kept", columns, rows)
