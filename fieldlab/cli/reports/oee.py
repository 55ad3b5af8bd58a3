"""What the machines did with their planned time: availability, performance, quality, and why they stood."""

from typing import Any
from urllib.parse import urlencode

from fieldlab.cli.common import ask_agent
from fieldlab.cli.figures import Bars
from fieldlab.cli.tables import Page, Section, Table, moment, span

HELP = "availability, performance, quality and OEE (ISO 22400-2) of every machine, and why it stood"

_PATIENCE = 300.0  # seconds: a store may hold many readings
_SHOWN = 15  # reasons for standing


def collect(config: Any, since: int) -> dict[str, Any]:
    """See `fieldlab.cli.report.Report`."""
    found: dict[str, Any] | None = ask_agent(
        config.agent.data, f"/report/oee?{urlencode({'since': since})}", timeout=_PATIENCE
    )
    if found is None:
        from edge.oeereport import without_agent

        found = without_agent(config, since)
    return found


def is_fine(data: dict[str, Any]) -> bool:
    """Always: an OEE is a figure and no fault."""
    return bool(data)


def page(data: dict[str, Any]) -> Page:
    """See `fieldlab.cli.report.Report`."""
    since = f"since {moment(data['since'])}" if data["since"] else "since each machine's first state"
    lines = [f"{since}, at {moment(data['time'])}; ISO 22400-2: OEE = availability x performance x quality"]
    if data["without_state"]:
        lines.append(f"without a signal that says what they do: {', '.join(data['without_state'])}")
    columns = (
        "machine", "#OEE", "#availability", "#performance", "#quality", "#planned", "#running", "#idle", "#down",
        "#no data", "#parts", "#good", "#failures", "#MTBF", "#MTTR",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = [
        (
            m["machine"], *(_percent(m[k]) for k in ("oee", "availability", "performance", "quality")),
            *(span(m[k]) for k in ("planned", "running", "idle", "down", "no_data")), m["parts"], m["good"],
            m["failures"], *("-" if m[k] is None else span(m[k]) for k in ("mtbf", "mttr")),
        )
        for m in data["machines"]
    ]  # fmt: skip
    table = Table("No data is neither production nor planned time", columns, rows)
    return Page("OEE", lines, [], [table], sections=[_section(m) for m in data["machines"]])


def _section(machine: dict[str, Any]) -> Section:
    cycle = "-" if machine["cycle"] is None else f"{machine['cycle']:.4g} s"
    lines = [
        f"{moment(machine['start'])} to {moment(machine['end'])}",
        f"planned time a part: {cycle} ({machine['cycle_from']})",
    ]
    if machine["parts"] == 0:
        lines.append("no parts: performance, quality and OEE cannot be said; a [[part]] table tells parts apart")
    else:
        lines.append(
            f"{machine['parts']} parts: {machine['good']} pass, {machine['suspect']} suspect, {machine['failed']} fail"
        )
    if machine["performance"] is not None and machine["performance"] > 1:
        lines.append("performance above 100 %: parts are made faster than planned, so `cycle` is too long")
    if machine["no_data"] and machine["least"] is not None:
        bounds = f"{_percent(machine['least'])} and {_percent(machine['most'])}"
        lines.append(f"no data for {span(machine['no_data'])}: with it, the OEE is between {bounds}")
    unknown = sorted(machine["unknown"].items(), key=lambda entry: -entry[1])
    if unknown:
        told = ", ".join(f"{state!r} ({span(seconds)})" for state, seconds in unknown[:10])
        lines.append(f"states that [[oee]] does not name count as no data: {told}")
    if machine["cut"]:
        lines.append("its state changed so often that only the newest readings were read")
    stops = machine["stops"][:_SHOWN]
    stood = sum(stop["seconds"] for stop in machine["stops"])
    sums, rows = 0.0, []
    for stop in stops:
        sums += stop["seconds"]
        share = (_percent(part / stood) for part in (stop["seconds"], sums))
        rows.append((stop["reason"], stop["category"], stop["times"], span(stop["seconds"]), *share))
    figures: list[Any] = []
    if stops:
        reasons = [stop["reason"] for stop in stops]
        figures = [Bars("Standing, minutes", reasons, [(stop["seconds"] / 60,) for stop in stops])]
    columns = ("reason", "what", "#times", "#time", "#share", "#together")
    return Section(machine["machine"], lines, figures, [Table("Why it stood, the longest first", columns, rows)])


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"
