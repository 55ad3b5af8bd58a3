"""`fieldlab limits`: versions of control limits: list them, freeze new ones or bring one back, compare two."""

import argparse
import getpass
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from fieldlab.cli.common import add_config_option, ask_agent, config_path, log_to_stderr
from fieldlab.cli.tables import Page, Table, as_text, moment
from fieldlab.config import Duration
from fieldlab.errors import RefusedError

_PATIENCE = 60.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("limits", help="versions of control limits", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="every version: when, why, of what recipe, from how many values")
    listing.add_argument("chart", nargs="?", default="", help="only this chart")
    freezing = actions.add_parser(
        "freeze", help="freeze limits anew on the newest values or a range, or bring one back"
    )
    freezing.add_argument("chart", help="the chart's name")
    what = freezing.add_mutually_exclusive_group()
    what.add_argument("--version", type=int, help="bring this version back")
    what.add_argument(
        "--from", dest="start", type=_moment, metavar="TIME", help="of the range: 2026-03-01T06:00, or 8h ago"
    )
    freezing.add_argument("--to", dest="end", type=_moment, metavar="TIME", help="end of the range; default: now")
    comparing = actions.add_parser("diff", help="compare two versions of a signal")
    comparing.add_argument("chart", help="the chart's name")
    comparing.add_argument("old", type=int, help="a version")
    comparing.add_argument("new", type=int, nargs="?", help="another; default: the one in force")
    for action in (listing, freezing, comparing):
        action.add_argument("--signal", default="", help="only this signal, machine/signal or its path; globs allowed")
        action.add_argument("--recipe", help="only limits of this recipe, tool or program")
        add_config_option(action)
        action.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; exit status 1 if a wish was refused, or a version to compare is not there."""
    from edge.config import load

    log_to_stderr()
    config = load(config_path(arguments.config))
    if arguments.action == "freeze":
        return _freeze(config, arguments)
    found = ask_agent(config.agent.data, "/limits", timeout=_PATIENCE)
    if found is None:
        from edge.limits import without_agent

        found = without_agent(config)
    found["versions"] = [v for v in found["versions"] if _chosen(v, arguments)]
    found["learning"] = [v for v in found["learning"] if _chosen(v, arguments)]
    if arguments.action == "diff":
        return _diff(found["versions"], arguments)
    if arguments.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(as_text(_page(found)))
    return 0


def _chosen(row: dict[str, Any], arguments: argparse.Namespace) -> bool:
    from fnmatch import fnmatchcase

    short = "/".join(row["signal"].split("/")[-2:])
    named = arguments.signal in ("", row["signal"]) or fnmatchcase(short, arguments.signal)
    recipe = arguments.recipe is None or row.get("recipe", "") == arguments.recipe
    return named and recipe and arguments.chart in ("", row["chart"])


def _page(found: dict[str, Any]) -> Page:
    versions = sorted(found["versions"], key=lambda v: (v["chart"], v["signal"], v.get("recipe", ""), v["version"]))
    rows: list[tuple[object, ...]] = [
        (
            v["chart"], v["signal"], v.get("recipe", "") or "-", v["version"],
            "in force" if v["in_force"] else "when it runs" if v["chosen"] else "",
            moment(v.get("time", 0)), v.get("by", "") or "its baseline", v["n"], *(f"{v[k]:.6g}" for k in _LINES),
            v.get("note", ""),
        )
        for v in versions
    ]  # fmt: skip
    columns = ("chart", "signal", "recipe", "#version", "", "frozen", "by", "#n", *(f"#{k}" for k in _LINES), "why")
    tables = [Table(f"Limits ({len(rows)} versions)", columns, rows)]
    if found["learning"]:
        learning: list[tuple[object, ...]] = [(v["chart"], v["signal"]) for v in found["learning"]]
        tables.append(Table("Still being learned", ("chart", "signal"), learning))
    if found["asked"]:
        asked: list[tuple[object, ...]] = [
            (moment(a["time"]), a["by"], a["chart"], a["signal"], "done" if a["done"] else "REFUSED", a["words"])
            for a in found["asked"]
        ]
        tables.append(Table("Asked for, newest first", ("time", "by", "chart", "signal", "", "what"), asked))
    return Page("Control limits", [], [], tables)


_LINES = ("center", "lcl", "ucl", "sigma")


def _freeze(config: Any, arguments: argparse.Namespace) -> int:
    wish = {
        "chart": arguments.chart, "signal": arguments.signal, "recipe": arguments.recipe, "by": getpass.getuser(),
        "version": arguments.version, "start": arguments.start, "end": arguments.end,
    }  # fmt: skip
    asked = {name: str(value) for name, value in wish.items() if value not in (None, "")}
    result = ask_agent(config.agent.data, f"/limits/freeze?{urlencode(asked)}", "POST", timeout=_PATIENCE)
    if result is None:
        result = _without_agent(config, asked)
    answers = result["asked"]
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return 0 if all(a["done"] for a in answers) else 1
    for a in answers:
        recipe = f" ({a['recipe']})" if a["recipe"] else ""
        print(f"{a['chart']} {a['signal']}{recipe}: {'' if a['done'] else 'REFUSED: '}{a['words']}")
    if not answers:
        print("asked for; the analytics have not come to it yet: see `fieldlab limits list`")
    return 0 if all(a["done"] for a in answers) else 1


def _without_agent(config: Any, asked: dict[str, str]) -> dict[str, Any]:
    from edge.limits import asked_for, without_agent
    from edge.stored import stored

    try:
        if "start" in asked or "end" in asked:
            with stored(config) as reader:
                control = asked_for(asked, reader, config)
        else:
            control = asked_for(asked, None, config)
    except ValueError as e:
        raise RefusedError(str(e)) from e
    return without_agent(config, lambda: control)


def _diff(versions: list[dict[str, Any]], arguments: argparse.Namespace) -> int:
    pairs = []
    for signal in dict.fromkeys(v["signal"] for v in versions):
        of = {v["version"]: v for v in versions if v["signal"] == signal}
        old = of.get(arguments.old)
        new = next((v for v in of.values() if v["in_force"]), None) if arguments.new is None else of.get(arguments.new)
        if old is not None and new is not None:
            pairs.append((old, new))
    if not pairs:
        raise RefusedError(f"no signal has these versions of {arguments.chart}: see `fieldlab limits list`")
    rows = [{"signal": old["signal"], "old": old, "new": new, "change": _change(old, new)} for old, new in pairs]
    if arguments.json:
        sys.stdout.write(json.dumps({"chart": arguments.chart, "signals": rows}) + "\n")
        return 0
    tables = []
    for row in rows:
        old, new = row["old"], row["new"]
        cells: list[tuple[object, ...]] = [
            (name, f"{old[name]:.6g}", f"{new[name]:.6g}", row["change"][name]) for name in (*_LINES, "n")
        ]
        cells += [("frozen", moment(old.get("time", 0)), moment(new.get("time", 0)), "")]
        cells += [(name, old.get(name, "") or "-", new.get(name, "") or "-", "") for name in ("recipe", "by", "note")]
        versions_ = f"version {old['version']}", f"version {new['version']}"
        tables.append(Table(f"{arguments.chart} {row['signal']}", ("", *versions_, "change"), cells))
    sys.stdout.write(as_text(Page("Control limits compared", [], [], tables)))
    return 0


def _change(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Lines move by so many of the old sigmas; sigma and n by so many percent."""
    found = {}
    for name in (*_LINES, "n"):
        if name in ("sigma", "n"):
            found[name] = f"{new[name] / old[name] - 1:+.1%}" if old[name] else "-"
        else:
            found[name] = f"{(new[name] - old[name]) / old['sigma']:+.2f} sigma" if old["sigma"] else "-"
    return found


def _moment(text: str) -> int:
    """Nanoseconds of a time, or of `8h` ago."""
    try:
        return time.time_ns() - Duration.parse(text).ns
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        words = (
            f'{text!r} is not understood: write a time such as "2026-03-01T14:00:00Z", or how long ago, such as "8h"'
        )
        raise argparse.ArgumentTypeError(words) from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e6) * 1_000
