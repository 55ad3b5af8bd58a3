"""`fieldlab report`: reports of an agent's data, as text, JSON, or one HTML page."""

import argparse
import json
import pkgutil
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from fieldlab.cli import reports, tables
from fieldlab.cli.common import add_config_option, config_path
from fieldlab.config import Duration


class Report(Protocol):
    """What a module of `fieldlab.cli.reports` has.

    One that has options of its own has `add_options(parser)` too, and its `collect` takes the parsed arguments third.

    Attributes:
        HELP: what it shows, in a few words.
    """

    HELP: str

    def collect(self, config: Any, since: int) -> dict[str, Any]:
        """What `--format json` prints. Asks the agent that runs, else opens its files.

        Args:
            config: the agent's `edge.config.AgentConfig`.
            since: ns; 0 for everything.

        Raises:
            FieldlabError: if neither answers.
        """
        ...

    def is_fine(self, data: dict[str, Any]) -> bool:
        """Whether the exit status is 0."""
        ...

    def page(self, data: dict[str, Any]) -> tables.Page:
        """The same for people."""
        ...


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("report", help="reports of what was stored and lost", description=__doc__)
    kinds = parser.add_subparsers(dest="report", required=True, metavar="REPORT")
    for found in pkgutil.iter_modules(reports.__path__):
        report = _load(found.name)
        words = report.HELP
        kind = kinds.add_parser(found.name, help=words, description=words)
        add_config_option(kind)
        kind.add_argument("--last", metavar="TIME", type=_duration, help="only the last 8h, 30min, 7d; default: all")
        kind.add_argument("--format", choices=("text", "json", "html"), default="text")
        kind.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
        if hasattr(report, "add_options"):
            report.add_options(kind)
        kind.add_argument("--out", type=Path, help="write to this file instead of stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print a report; exit status 1 if what it shows is not fine."""
    from edge.config import load

    report = _load(arguments.report)
    since = 0 if arguments.last is None else time.time_ns() - arguments.last.ns
    own = (arguments,) if hasattr(report, "add_options") else ()
    collect: Any = report.collect
    data = collect(load(config_path(arguments.config)), since, *own)
    if arguments.format == "json":
        text = json.dumps(data) + "\n"
    else:
        text = (tables.as_html if arguments.format == "html" else tables.as_text)(report.page(data))
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        arguments.out.write_text(text, "utf-8")
    return 0 if report.is_fine(data) else 1


def _load(name: str) -> Report:
    return cast("Report", import_module(f"fieldlab.cli.reports.{name}"))


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None
