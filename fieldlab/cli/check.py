"""`fieldlab check`: preflight of a configuration, without disturbing a running agent."""

import argparse
import asyncio
import sys
from pathlib import Path

from fieldlab.cli.common import log_to_stderr
from fieldlab.secrets import hide

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("check", help="preflight of a configuration", description=__doc__)
    parser.add_argument("config", type=Path, help="configuration file (TOML)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; exit status 1 if anything would not work."""
    import msgspec

    from edge.check import check
    from edge.config import load

    log_to_stderr()
    lines = asyncio.run(check(load(arguments.config)))
    failed = sum(line.level == "fail" for line in lines)
    if arguments.json:
        sys.stdout.write(hide(msgspec.json.encode({"ok": failed == 0, "lines": lines}).decode()) + "\n")
    else:
        for line in lines:
            print(hide(f"{_MARKS[line.level]}  {line.subject}: {line.text}"))
        print(f"{len(lines)} checked, {failed} would not work" if failed else f"{len(lines)} checked, all would work")
    return 1 if failed else 0
