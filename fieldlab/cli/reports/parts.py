"""What was made, what is suspect or failed and why; and the genealogy of parts, both ways."""

import argparse
from typing import Any
from urllib.parse import urlencode

from fieldlab.cli.common import ask_agent
from fieldlab.cli.figures import Bars
from fieldlab.cli.tables import Page, Table, moment, span

HELP = "what was made, what is suspect or failed and why, a part's genealogy; exit status 1 if parts failed"

_KINDS = ("pass", "suspect", "fail")
_FEW = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of this report alone."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--part", metavar="ID", help="one part (or lot): its history, what went into it, where it went")
    what.add_argument("--saw", metavar="NAME=VALUE", help="parts on which that was used, such as tool=T01")
    parser.add_argument(
        "--since", metavar="FINDING_OR_TIME", default="", help="with --saw: at or after that finding, time, or 8h ago"
    )


def collect(config: Any, since: int, options: argparse.Namespace) -> dict[str, Any]:
    """See `fieldlab.cli.report.Report`."""
    asked = {"since": str(since)}
    if options.part is not None:
        asked = {"part": options.part}
    elif options.saw is not None:
        asked = {"saw": options.saw, "since": options.since or (str(since) if since else "")}
    found: dict[str, Any] | None = ask_agent(config.agent.data, f"/report/parts?{urlencode(asked)}")
    if found is not None:
        return found
    from edge.partreport import ask
    from edge.stored import stored
    from fieldlab.errors import RefusedError

    with stored(config) as reader:
        try:
            return ask(reader, asked)
        except ValueError as e:
            raise RefusedError(str(e)) from e


def is_fine(data: dict[str, Any]) -> bool:
    """Whether no part failed; of a part, whether it is known and good where it was judged."""
    if "totals" in data:
        return bool(data["totals"]["fail"] == 0)
    if "what" in data:
        return not data["counts"].get("fail", 0)
    newest = {v["machine"]: v["verdict"] for v in data["verdicts"]}
    return bool(data["known"]) and "fail" not in newest.values()


def page(data: dict[str, Any]) -> Page:
    """See `fieldlab.cli.report.Report`."""
    if "totals" in data:
        return _summary(data)
    return _saw(data) if "what" in data else _genealogy(data)


def _summary(data: dict[str, Any]) -> Page:
    totals = data["totals"]
    since = f"since {moment(data['since'])}" if data["since"] else "since the store began"
    lines = [
        f"{since}, at {moment(data['time'])}",
        f"made {totals['made']}: " + ", ".join(f"{kind} {totals[kind]}" for kind in _KINDS),
        f"first pass yield {_share(totals['first_pass_yield'])}; reworked {totals['reworked']}",
        f"verdicts that a later event revised: {totals['revised']}",
    ]
    faults = [] if data["complete"] else ["the store has more parts than a report reads: ask for less with --last"]
    columns = ("machine", "#made", *(f"#{kind}" for kind in _KINDS), "#reworked", "#revised", "#first pass yield")
    machines: list[tuple[object, ...]] = [
        (
            m["machine"], m["made"], *(m[kind] for kind in _KINDS), m["reworked"], m["revised"],
            _share(m["first_pass_yield"]),
        )
        for m in data["machines"]
    ]  # fmt: skip
    reasons: list[tuple[object, ...]] = [
        (r["parts"], r["machine"], f"{r['example']} ({r['part']})") for r in data["reasons"]
    ]
    parts: list[tuple[object, ...]] = [
        (moment(p["end"]), p["machine"], p["id"], p["verdict"], p["revision"], _told(p["genealogy"]), _why(p))
        for p in data["parts"]
    ]
    more = f"; {data['not_listed']} older ones are left out" if data["not_listed"] else ""
    names = ("end", "machine", "part", "verdict", "#revision", "with", "reasons")
    top = data["reasons"][:_FEW]
    figures = [
        Bars("parts a machine", [m["machine"] for m in data["machines"]],
             [tuple(float(m[kind]) for kind in _KINDS) for m in data["machines"]], _KINDS),
        Bars("parts a reason", [f"{r['machine']}: {r['reason']}" for r in top], [(float(r["parts"]),) for r in top]),
    ]  # fmt: skip
    return Page(
        "Parts",
        lines,
        faults,
        [
            Table("Machines", columns, machines),
            Table("Reasons, by parts, with an example", ("#parts", "machine", "reason"), reasons),
            Table(f"Suspect and failed parts ({len(parts)}{more})", names, parts),
        ],
        [figure for figure in figures if figure.labels],
    )


def _genealogy(data: dict[str, Any]) -> Page:
    faults = [] if data["known"] else [f"the store knows no part, lot or tool {data['part']!r}"]
    faults += [] if data["complete"] else ["its genealogy is larger than a report shows"]
    history: list[tuple[object, ...]] = [
        (
            v["machine"], v["revision"], v["verdict"], moment(v["start"]) if v["start"] else "", moment(v["end"]),
            span((v["end"] - v["start"]) / 1e9) if v["start"] else "", _told(v["genealogy"]),
            _told(v["limits_versions"]), _told({k: f"{x:.6g}" for k, x in v["features"].items()}), _why(v),
        )
        for v in data["verdicts"]
    ]  # fmt: skip
    names = ("machine", "#revision", "verdict", "start", "end", "#took", "with", "limits", "features", "reasons")
    events: list[tuple[object, ...]] = [
        (moment(e["time"]), e["machine"], e["event"], e["other"], _number(e["value"]), e["text"])
        for e in data["events"]
    ]
    return Page(
        f"Part {data['part']}",
        [f"{len(data['backward'])} things went into it, it went into {len(data['forward'])}"],
        faults,
        [
            Table("Verdicts, every revision", names, history),
            Table("Went into it, nearest first", *_links(data["backward"])),
            Table("Went into, nearest first", *_links(data["forward"])),
            Table("Events", ("time", "machine", "event", "other", "#value", "text"), events),
        ],
    )


def _links(links: list[dict[str, Any]]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    rows: list[tuple[object, ...]] = [
        (
            link["level"], link["to"], link["as"], link["part"] if link["to"] != link["part"] else link["other"],
            link["machine"], moment(link["time"]),
            "; ".join(f"{v['verdict']} at {v['machine'].rsplit('/', 1)[-1]}" for v in link["verdicts"]),
        )
        for link in links
    ]  # fmt: skip
    return ("#level", "what", "as", "with", "machine", "time", "verdict"), rows


def _saw(data: dict[str, Any]) -> Page:
    since = f" at or after {moment(data['since'])}" if data["since"] else ""
    rows: list[tuple[object, ...]] = [
        (moment(p["first"]), p["machine"], p["id"], p["verdict"] or "not judged yet", ", ".join(p["into"]), _why(p))
        for p in data["parts"]
    ]
    counts = ", ".join(f"{kind or 'not judged yet'} {n}" for kind, n in sorted(data["counts"].items()))
    return Page(
        f"Parts that saw {data['what']}{since}",
        [f"{len(rows)} parts" + (f": {counts}" if counts else "")],
        [],
        [Table("Parts", ("first", "machine", "part", "verdict", "went into", "reasons"), rows)],
    )


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _told(pairs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in pairs.items())


def _why(part: dict[str, Any]) -> str:
    return "; ".join(part["reasons"])
