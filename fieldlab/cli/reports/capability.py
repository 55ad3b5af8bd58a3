"""What the processes can do against their specification, and why an index is not stated."""

import argparse
from typing import Any
from urllib.parse import urlencode

from fieldlab.cli.common import ask_agent
from fieldlab.cli.figures import Bars, Figure, Histogram, Line, RunChart
from fieldlab.cli.tables import Page, Section, Table, moment, span

HELP = "capability of every signal with specification limits; exit status 1 if one is below the floor or beyond a limit"

_FLOOR = 1.33  # usual for a running process; 1.67 for a new one, or where safety depends on it
_NAMES = ("Cp", "Cpk", "Cpm", "Pp", "Ppk")
_PATIENCE = 300.0  # seconds: a store may hold many values
_UNLIKELY = 0.001


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this report alone."""
    parser.add_argument(
        "--floor", type=float, default=_FLOOR, help=f"the least Cpk (or Ppk, where Cpk is not stated); default {_FLOOR}"
    )


def collect(config: Any, since: int, options: argparse.Namespace) -> dict[str, Any]:
    """See `fieldlab.cli.report.Report`."""
    found: dict[str, Any] | None = ask_agent(
        config.agent.data, f"/report/capability?{urlencode({'since': since})}", timeout=_PATIENCE
    )
    if found is None:
        from edge.capabilityreport import summary
        from edge.stored import stored

        with stored(config) as reader:
            found = summary(reader, config, since)
    for row in found["signals"]:
        row["below_floor"] = _below_floor(row, options.floor)
    return found | {"floor": options.floor}


def is_fine(data: dict[str, Any]) -> bool:
    """Whether no signal is below the floor or has values beyond its limits. What is not stated is not judged."""
    return not any(row["below_floor"] or _beyond(row) for row in data["signals"])


def page(data: dict[str, Any]) -> Page:
    """See `fieldlab.cli.report.Report`."""
    rows = data["signals"]
    since = f"since {moment(data['since'])}" if data["since"] else "since the store began"
    lines = [
        f"{since}, at {moment(data['time'])}; intervals have 95 %",
        f"{len(rows)} signals with specification limits, {data['without_limits']} without",
        "Cp, Cpk, Cpm: of a stable process, by sigma within; Pp, Ppk: by all values; by percentiles where not normal",
    ]
    faults = [f"{row['signal']}: {words}" for row in rows for words in _wrong(row, data["floor"])]
    columns = (
        "signal", "#n", "each", "#mean", "#sigma within", "#sigma", "#LSL", "#USL",
        *(f"#{name}" for name in _NAMES), "#below", "#above", "#share beyond", "#expected ppm", "stable", "method",
    )  # fmt: skip
    table: list[tuple[object, ...]] = [
        (
            f"{row['machine']}/{row['name']}{f' [{unit}]' if (unit := row['unit']) else ''}", row["n"], row["each"],
            _number(row.get("mean")), _number(row.get("sigma_within")), _number(row.get("sigma_overall")),
            _number(row["lsl"]), _number(row["usl"]), *(_index(row["indices"].get(name)) for name in _NAMES),
            row.get("below_lsl", "-"), row.get("above_usl", "-"), _share(row) if "beyond_share" in row else "-",
            _ppm(row), _stable(row), row.get("method", "none"),
        )
        for row in rows
    ]  # fmt: skip
    reasons: list[tuple[object, ...]] = [
        (f"{row['machine']}/{row['name']}", ", ".join(names), why)
        for row in rows
        for why, names in _by_reason(row["not_stated"]).items()
    ]
    stated = [(row, row["indices"].get("Cpk") or row["indices"].get("Ppk")) for row in rows]
    ranked = sorted([(row, index) for row, index in stated if index], key=lambda pair: pair[1]["value"])
    bars = Bars(
        "Cpk, or Ppk where Cpk is not stated, lowest first (below the floor is marked)",
        [f"{row['machine']}/{row['name']}" for row, _ in ranked], [(max(i["value"], 0.0),) for _, i in ranked],
        bad=tuple(n for n, (row, _) in enumerate(ranked) if row["below_floor"]),
    )  # fmt: skip
    tables = [Table("Capability and performance, with intervals", columns, table)] if rows else []
    tables += [Table("Not stated, because …", ("signal", "index", "because"), reasons)] if reasons else []
    tables += [_load(data)] if data["load"] else []
    return Page("Capability", lines, faults, tables, [bars] if ranked else [], [_section(row) for row in rows])


def _load(data: dict[str, Any]) -> Table:
    together = [{"chart": f"all {m['charts']} together", "each": "", **m} for m in data["machines"]]
    rows: list[tuple[object, ...]] = [
        (
            f"{row['machine'].rsplit('/', 1)[-1]}", row["chart"], row["channels"], row["each"],
            _number(row["designed_a_shift"]), row["findings"], _number(row["findings_a_shift"]),
            span(row["shifts"] * _seconds(data["shift"])), _judgement(row),
        )
        for row in [*together, *data["load"]]
    ]  # fmt: skip
    columns = ("machine", "chart", "#signals", "each", "#false a shift, designed", "#findings", "#findings a shift",
               "#time", "so")  # fmt: skip
    return Table(f"Alarm load: false alarms by design beside findings, a shift of {data['shift']}", columns, rows)


def _seconds(shift: str) -> float:
    return float(shift.removesuffix(" h")) * 3600


def _judgement(row: dict[str, Any]) -> str:
    if row["designed_a_shift"] is None or row["chance"] is None:
        return "nothing says how many values there are"
    expected = row["designed_a_shift"] * row["shifts"]
    if row["chance"] < _UNLIKELY:
        return f"more than the {expected:.2g} that chance gives: the process moves, or its limits are no longer its own"
    return f"chance gives {expected:.2g} in this time"


def _section(row: dict[str, Any]) -> Section:
    unit = f", {row['unit']}" if row["unit"] else ""
    lines = [f"{row['n']} values, each {row['each']}" + (" (the newest only)" if row["newest_only"] else "")]
    if row.get("stability"):
        lines.append(f"{'stable' if row['stability']['stable'] else 'NOT stable'}: {row['stability']['words']}")
        lines.append(f"method {row['method']}: {row['method_words']}")
    if row["uncertainty"] is not None:
        share = row.get("uncertainty_of_tolerance")
        of = f", {share:.1%} of the tolerance" if share is not None else ""
        lines.append(f"expanded uncertainty of measurement {_number(row['uncertainty'])}{of}")
    if "beyond_share" in row:
        lines.append(
            f"{_beyond(row)} of {row['n']} values beyond the specification: {_share(row)}, whatever they follow"
        )
    lines += row["findings_words"]
    lines += [f"{', '.join(names)} not stated: {why}" for why, names in _by_reason(row["not_stated"]).items()]
    figures: list[Figure] = []
    spec = [Line(row[key], key.upper(), "spec") for key in ("lsl", "usl") if row[key] is not None]
    if "histogram" in row:
        low, high = (row[key] for key in ("lsl", "usl"))
        limits = row.get("limits")
        across = [Line(limits[key], key.upper()) for key in ("lcl", "ucl")] if limits else []
        across.append(Line(limits["center"] if limits else row["mean"], "centre" if limits else "mean", "centre"))
        values = row["run"]["value"]
        out = tuple(i for i, v in enumerate(values) if (low is not None and v < low) or (high is not None and v > high))
        words = f"; limits of chart {limits['chart']}, version {limits['version']}" if limits else ""
        figures.append(RunChart(f"In time{unit}{words}", row["run"]["time"], values, (*spec, *across), out))
        shape, mean = row["histogram"], Line(row["mean"], "mean", "centre")
        figures.append(Histogram(f"Distribution{unit}", shape["edges"], shape["counts"], (*spec, mean), shape["curve"]))
    indices: list[tuple[object, ...]] = [
        (name, f"{i['value']:.3f}", _number(i["low"]), _number(i["high"])) for name, i in sorted(row["indices"].items())
    ]
    tables = [Table("Indices", ("index", "#value", "#from", "#to"), indices)] if indices else []
    return Section(f"{row['machine']}/{row['name']}", lines, figures, tables, page_only=True)


def _by_reason(not_stated: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in not_stated.items():
        found.setdefault(why, []).append(name)
    return found


def _wrong(row: dict[str, Any], floor: float) -> list[str]:
    words = []
    if beyond := _beyond(row):
        words.append(f"{beyond} of {row['n']} values are beyond the specification")
    if row["below_floor"]:
        name = "Cpk" if "Cpk" in row["indices"] else "Ppk"
        words.append(f"{name} {row['indices'][name]['value']:.2f} is below {floor:g}")
    return words


def _below_floor(row: dict[str, Any], floor: float) -> bool:
    index = row["indices"].get("Cpk") or row["indices"].get("Ppk")
    return index is not None and index["value"] < floor


def _beyond(row: dict[str, Any]) -> int:
    return int(row.get("below_lsl", 0)) + int(row.get("above_usl", 0))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _index(index: dict[str, Any] | None) -> str:
    if index is None:
        return "not stated"
    if index["low"] is None:
        return f"{index['value']:.2f}"
    return f"{index['value']:.2f} ({index['low']:.2f} to {index['high']:.2f})"


def _share(row: dict[str, Any]) -> str:
    share = row["beyond_share"]
    if not _beyond(row):
        return f"less than {share['high']:.2%}"
    return f"{share['share']:.2%} ({share['low']:.2%} to {share['high']:.2%})"


def _ppm(row: dict[str, Any]) -> str:
    expected = row.get("expected_ppm")
    return "-" if expected is None else f"{sum(expected):.3g}"


def _stable(row: dict[str, Any]) -> str:
    found = row.get("stability")
    return "-" if found is None else "yes" if found["stable"] else "no"
