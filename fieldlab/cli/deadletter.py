"""`fieldlab deadletter`: what stores refused for good, and input that could not be read: list, send again, drop."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fieldlab.cli.common import add_config_option, ask_agent, config_path
from fieldlab.errors import RefusedError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("deadletter", help="what was refused for good", description=__doc__)
    parser.add_argument("action", choices=("list", "replay", "drop"))
    parser.add_argument("id", nargs="*", type=int, help="only these letters")
    parser.add_argument("--store", default="", help="only letters of this store or source")
    parser.add_argument("--all", action="store_true", help="replay or drop every letter")
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; exit status 1 if a letter could not be sent again."""
    from edge.config import load

    if arguments.action != "list" and not (arguments.id or arguments.store or arguments.all):
        raise RefusedError(f"say which letters to {arguments.action}: ids, --store, or --all")
    data = load(config_path(arguments.config)).agent.data
    asked = urlencode([("store", arguments.store), *(("id", number) for number in arguments.id)])
    path = "/deadletters" if arguments.action == "list" else f"/deadletters/{arguments.action}"
    result = ask_agent(data, f"{path}?{asked}", "GET" if arguments.action == "list" else "POST")
    if result is None:
        result = _without_agent(arguments, data)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif arguments.action == "list":
        _print_list(result["deadletters"])
    else:
        print(", ".join(f"{name} {count} readings" for name, count in result.items() if isinstance(count, int)))
        for number, why in result["kept"].items():
            print(f"kept {number}: {why}")
    return 1 if result.get("kept") or result.get("refused") else 0


def _without_agent(arguments: argparse.Namespace, data: Path) -> dict[str, Any]:
    """Nobody runs on the data folder: open the journal ourselves."""
    import msgspec

    from edge.remedy import Outcome
    from ingest.deadletter import DeadLetters
    from ingest.journal import Journal

    if arguments.action == "replay":
        raise RefusedError(f"no agent runs on {data}: start it, it sends the letters through its stores")
    if not (data / "journal.db").exists():
        raise RefusedError(f"there is no journal in {data}: no agent has run on it yet")
    journal = Journal(data / "journal.db")
    try:
        letters = DeadLetters(journal)
        found = letters.list(store=arguments.store, ids=arguments.id)
        if arguments.action == "list":
            return {"deadletters": msgspec.to_builtins(found)}
        letters.remove([listed.id for listed in found]).result()
        dropped: dict[str, Any] = msgspec.to_builtins(Outcome(dropped=sum(listed.readings for listed in found)))
        return dropped
    finally:
        journal.close()


def _print_list(letters: list[dict[str, Any]]) -> None:
    for letter in letters:
        what = "/".join(part for part in (letter["machine"], letter["signal"]) if part)
        print(f"{letter['id']:>6}  {letter['store']}  {what}  {letter['readings']} readings: {letter['reason']}")
    print(f"{len(letters)} dead letters" if letters else "no dead letters")
