"""The command `fieldlab`: one file a subcommand, imported only when it is used."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from fieldlab import __version__
from fieldlab.errors import ConfigError, FieldlabError
from fieldlab.secrets import hide

_COMMANDS = (
    "demo",
    "agent",
    "check",
    "status",
    "report",
    "simulate",
    "score",
    "replay",
    "deadletter",
    "limits",
    "discover",
    "certs",
    "boards",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status is 0 fine, 1 the thing checked is not fine, 2 bad usage or configuration."""
    parser = argparse.ArgumentParser(
        prog="fieldlab", description="Shop-floor telemetry that loses nothing, with zero-defect analytics."
    )
    parser.add_argument("--version", action="version", version=f"fieldlab {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        import_module(f"fieldlab.cli.{command}").add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    try:
        code = import_module(f"fieldlab.cli.{parsed.command}").run(parsed)
    except ConfigError as e:
        print(f"fieldlab: {hide(str(e))}", file=sys.stderr)
        return 2
    except FieldlabError as e:
        print(f"fieldlab: {hide(str(e))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `fieldlab … | head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return int(code)
