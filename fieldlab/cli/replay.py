"""`fieldlab replay`: recorded data, CSV or Parquet, through journal and charts as if it were live, at full speed."""

import argparse
import sys
from pathlib import Path

from fieldlab.cli.common import log_to_stderr


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("replay", help="run recorded data through the same code", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV (delimiter and header are detected) or Parquet")
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help='configuration file (TOML) with a [[source]] kind = "replay"'
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="one row for each row of FILE: time,alarm,statistic,limit,contributors"
    )
    parser.add_argument("--chart", default="", metavar="NAME", help="whose statistic --out shows; default: the first")
    parser.add_argument(
        "--store", action="store_true", help="keep journal and results, in the data folder and the stores"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Replay, and print what was found; exit status 0 unless something could not be done."""
    import msgspec

    from edge.config import load
    from edge.replay import replay

    log_to_stderr()
    done = replay(
        load(arguments.config, agent="replay"),
        arguments.file,
        out=arguments.out,
        chart=arguments.chart,
        store=arguments.store,
    )
    if arguments.json:
        sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
        return 0
    print(f"{done.file}: {done.rows} rows, {done.readings} readings in {done.seconds:.1f} s, {done.findings} findings")
    for chart in done.charts:
        print(f"{chart['chart']}: {chart['judged']} values judged, {chart['alarms']} alarms")
        for signal, limits in chart["limits"].items():
            if limits is None:
                print(f"  {signal}: no limits yet")
            else:
                print(f"  {signal}: {limits['lcl']:.6g} to {limits['ucl']:.6g}; {limits['note']}")
    for store, readings in done.stored.items():
        print(f"{store}: {readings} readings stored")
    told = {name: count for name, count in done.counters.items() if count and name not in ("rows", "readings")}
    for name, count in told.items():
        print(f"{name.replace('_', ' ')}: {count}")
    return 0
