"""`fieldlab status`: health of a running agent: sources, lag of every cursor, ledger totals."""

import argparse
import json
from typing import Any

from fieldlab.cli.common import add_config_option, ask_agent, config_path
from fieldlab.errors import RefusedError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("status", help="health of a running agent", description=__doc__)
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print the status; exit status 1 if no agent runs, or something in it is not fine."""
    from edge.config import load

    path = config_path(arguments.config)
    config = load(path)
    status = ask_agent(config.agent.data, "/status")
    if status is None:
        raise RefusedError(f"no agent runs on {config.agent.data}; start it with `fieldlab agent {path}`")
    if arguments.json:
        print(json.dumps(status))
    else:
        _print(status)
    return 0 if status["ready"] else 1


def _print(status: dict[str, Any]) -> None:
    print(f"agent {status['agent']}: {'ready' if status['ready'] else 'NOT READY'}, up {status['uptime']:.0f} s")
    for state in ("refused", "waiting"):
        if status["configuration"][state]:
            _line(f"configuration: {state}", status["configuration"][state])
    for source in status["sources"]:
        state = "connected" if source["connected"] else "NOT CONNECTED"
        _line(f"source {source['name']} {source['url']}: {state}, {source['signals']} signals", source["error"])
        for signal, reason in source["missing"].items():
            _line(f"  missing {signal}", reason)
    for consumer in status["consumers"]:
        lag = f"{consumer['lag_readings']} readings, {consumer['lag_seconds']:.1f} s behind"
        _line(f"consumer {consumer['name']}: {lag}", consumer["error"])
    _line("ledger: " + ", ".join(f"{name} {count}" for name, count in status["ledger"].items() if name != "lost"))
    for store in status["ledger_stores"]:
        names = ("stored", "dead", "dropped", *(("left_out",) if store["left_out"] else ()), "waiting")
        became = ", ".join(f"{name.replace('_', ' ')} {store[name]}" for name in names)
        _line(f"store {store['name']}: {became}")
    for losses in status["ledger_losses"]:
        number = losses["signals"]
        _line(f"{losses['guarantee']}: {number} signal{'s' if number != 1 else ''}, {losses['loss']}")
    for cause, states in status["gaps"]["by_cause"].items():
        _line(f"gaps, {cause.replace('_', ' ')}: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    if reasons := {reason: count for reason, count in status["not_judged"].items() if count}:
        _line("stored, not judged: " + ", ".join(f"{count} {r.replace('_', ' ')}" for r, count in reasons.items()))
    journal = status["journal"]
    full = " FULL: sources are held" if journal["full"] else ""
    _line(f"journal: {journal['bytes'] / 1e6:.1f} of {journal['max_bytes'] / 1e6:.0f} MB{full}", journal["error"])


def _line(text: str, error: str = "") -> None:
    print(f"  {text}{f': {error}' if error else ''}")
