"""`fieldlab score`: what an agent stored and found, against the ground truth of its simulated machines."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fieldlab.cli.common import add_config_option, ask_agent, config_path
from fieldlab.errors import RefusedError


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("score", help="findings against ground truth", description=__doc__)
    parser.add_argument("truth", type=Path, help="what `fieldlab simulate --truth` wrote")
    add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print the score; exit status 1 if a reading is lost, a fault was missed, or a bad part escaped."""
    from edge.config import load

    config = load(config_path(arguments.config))
    result = score_agent(arguments.truth, config.agent.data)
    if arguments.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        print_score(result)
    readings, faults, parts = result["readings"], result["faults"], result["parts"]
    fine = readings["lost"] == 0 and faults["found"] == faults["injected"] and parts["escaped"] == 0
    return 0 if fine else 1


def score_agent(truth: Path, data: Path) -> dict[str, Any]:
    """The score of the agent that runs on a data folder.

    Raises:
        RefusedError: if none runs, or the truth cannot be read.
    """
    import msgspec

    from simulators.score import score
    from simulators.truth import TruthError, read_truth

    def ask(path: str) -> Any:
        answer = ask_agent(data, path)
        if answer is None:
            raise RefusedError(f"no agent runs on {data}; start it, so that its store can be asked")
        return answer

    try:
        known = read_truth(truth)
    except (OSError, TruthError) as e:
        raise RefusedError(str(e)) from e
    signals = {f"{line.place}/{line.signal}" for line in known.readings}
    signals |= {f"{line.place}/{line.signal}" for line in known.digests}
    ledger = {row["path"]: row for row in ask("/status")["ledger_signals"]}
    # A signal's Bad readings are not in the truth: an OPC UA node without a value yet, a lost connection.
    committed = sum(ledger[path]["committed"] - ledger[path]["bad"] for path in signals if path in ledger)
    result = score(
        known,
        lambda path: ask(f"/query/telemetry?signal={quote(path)}"),
        ask("/query/findings"),
        ask("/query/verdicts"),
        committed=committed,
    )
    found: dict[str, Any] = msgspec.to_builtins(result)
    return found


def print_score(result: dict[str, Any]) -> None:
    """The score, for a person."""
    readings, faults, parts = result["readings"], result["faults"], result["parts"]
    delay = "-"
    if faults["delay_parts"] is not None:
        delay = f"{faults['delay_parts']:.1f} parts ({faults['delay_seconds']:.1f} s)"
    print(
        f"readings  sent {readings['sent']}, committed {readings['committed']}, stored {readings['stored']},"
        f" lost {readings['lost']} (altered {readings['altered']}), duplicated {readings['duplicated']}\n"
        f"faults    injected {faults['injected']}, found {faults['found']}, missed {faults['missed']}, delay {delay},"
        f" false alarms {faults['false_alarms']}\n"
        f"cause     first named {faults['top1']}, among the first three {faults['top3']}, of {faults['found']}\n"
        f"parts     made {parts['made']}, bad {parts['bad']}, escaped {parts['escaped']}, overkill {parts['overkill']},"
        f" without a verdict {parts['unjudged']}"
    )
