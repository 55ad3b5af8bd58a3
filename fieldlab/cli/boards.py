"""`fieldlab boards`: builds the Grafana boards and alert rules, or pushes them to a Grafana server."""

import argparse
import json
from pathlib import Path
from typing import Any

from fieldlab.errors import ConfigError, RefusedError
from fieldlab.secrets import read_secret

_SIGNS = {"create": "+", "change": "~", "same": "="}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand's usage."""
    parser = subparsers.add_parser("boards", help="build or push the Grafana boards", description=__doc__)
    parser.add_argument(
        "action", choices=("build", "push"), help="write the files, or bring a Grafana server up to date"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    build = parser.add_argument_group("build")
    build.add_argument("--out", type=Path, metavar="DIR", help="default: where they are committed, deploy/grafana")
    push = parser.add_argument_group("push")
    push.add_argument("--url", default="", help="of Grafana, such as https://grafana.example:3000")
    push.add_argument("--token-file", type=Path, metavar="FILE", help="token of a service account; mode 0600")
    push.add_argument("--dry-run", action="store_true", help="only say what would change")
    push.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust; default: the system's")
    push.add_argument("--influx-url", default="", help="where Grafana finds InfluxDB: makes the data source")
    push.add_argument("--influx-database", default="telemetry", help="database, or bucket with 2.x (telemetry)")
    push.add_argument("--influx-token-file", type=Path, metavar="FILE", help="with which Grafana reads; mode 0600")
    push.add_argument("--mail", default="", metavar="ADDRESS", help="where alerts go; default: the server's policy")


def run(arguments: argparse.Namespace) -> int:
    """Build or push; exit status 1 if the server refuses."""
    done = _build(arguments) if arguments.action == "build" else _push(arguments)
    if arguments.json:
        print(json.dumps(done))
    return 0


def _build(arguments: argparse.Namespace) -> dict[str, Any]:
    from deploy.grafana.build import HERE, build

    folder = arguments.out or HERE
    try:
        done = build(folder)
    except OSError as e:
        raise RefusedError(f"the boards cannot be written to {folder}: {e.strerror}: {e.filename}") from e
    if not arguments.json:
        for name, state in done.items():
            print(f"{state:8} {folder / name}")
    return {"files": done}


def _push(arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        from deploy.grafana.push import Target, push
    except ImportError as e:
        raise RefusedError(f"{e.name} is not installed; run: pip install 'fieldlab[boards]'") from e

    if not arguments.url or arguments.token_file is None:
        raise ConfigError("`fieldlab boards push` needs both --url and --token-file")
    target = Target(
        url=arguments.url,
        token=read_secret(arguments.token_file),
        ca_file=arguments.ca_file,
        influx_url=arguments.influx_url,
        influx_database=arguments.influx_database,
        influx_token=read_secret(arguments.influx_token_file) if arguments.influx_token_file else "",
        mail=arguments.mail,
    )
    changes = []
    for change in push(target, dry_run=arguments.dry_run):
        changes.append({"what": change.what, "state": change.state, "differences": change.differences})
        if not arguments.json:
            print(f"{_SIGNS[change.state]} {change.what}: {change.state}", flush=True)
            for difference in change.differences:
                print(f"    {difference}", flush=True)
    if not arguments.json:
        count = sum(c["state"] != "same" for c in changes)
        print(f"{count} of {len(changes)} {'would change' if arguments.dry_run else 'changed'}")
    return {"dry_run": arguments.dry_run, "changes": changes}
