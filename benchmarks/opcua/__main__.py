"""Our OPC UA source beside asyncua's handler mode and node-opcua's client, in one run: CPU seconds per million values.

    python -m benchmarks.opcua [--items 1000] [--rate 10] [--seconds 10] [--rounds 3]

Load: a node-opcua server, which writes every variable `rate` times a second. Two loads: "uniform" (Double, all Good)
and "mixed" (Double, Int32, Boolean, Float and a tenth String; a tenth of the values Bad). Each client is a process of
its own, and only its own CPU counts; ours ends at the batch (a sink that has everything at once). The figure of each
client is the median of the rounds. `subscribe` is our CPU from nothing until 5,000 items have given their first value.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CLIENTS = ("asyncua", "node-opcua", "fieldlab")
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NODE_MODULES = ROOT / "tests" / "interop" / "node_modules"
NODE = {"PATH": os.defpath + ":/usr/local/bin", "NODE_PATH": str(NODE_MODULES)}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def feeder(items: int, rate: float, load: str) -> Iterator[str]:
    """The URL of a running server."""
    port = free_port()
    command = ["node", str(HERE / "feeder.js"), str(port), str(items), str(rate), load]
    with subprocess.Popen(command, env=NODE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if line.strip() == b"ready":
                    break
            else:
                raise SystemExit("the node-opcua server did not start")
            yield f"opc.tcp://127.0.0.1:{port}"
        finally:
            server.kill()


def run(command: list[str], timeout: float) -> dict[str, Any]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, cwd=ROOT, env={**os.environ, **NODE}
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def client(name: str, url: str, items: int, seconds: float, interval: float) -> dict[str, Any]:
    rest = [url, str(items), str(seconds), str(interval)]
    if name == "node-opcua":
        return run(["node", str(HERE / "client.js"), *rest], seconds + 60)
    return run([sys.executable, "-m", "benchmarks.opcua.clients", name, *rest], seconds + 60)


def measure(load: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU microseconds a value of each client, and the ratios."""
    costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    interval = 1000 / arguments.rate
    for _ in range(arguments.rounds):
        for name in CLIENTS:
            # A server of its own for each: what one client leaves there must not cost the next.
            with feeder(arguments.items, arguments.rate, load) as url:
                found = client(name, url, arguments.items, arguments.seconds, interval)
            if not found["values"]:
                raise SystemExit(f"{name} received nothing of the {load} load")
            costs[name].append(found["cpu_s"] / found["values"] * 1e6)
            rates[name].append(found["values"] / found["seconds"])
    cost = {name: statistics.median(list_) for name, list_ in costs.items()}
    return {
        "cpu_s_per_million": {name: round(c, 2) for name, c in cost.items()},
        "values_per_s": {name: round(statistics.median(r)) for name, r in rates.items()},
        "asyncua_by_ours": round(cost["asyncua"] / cost["fieldlab"], 1),
        "node_opcua_by_ours": round(cost["node-opcua"] / cost["fieldlab"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("node") is None:
        raise SystemExit("needs node: install Debian's package nodejs")
    if not NODE_MODULES.is_dir():
        raise SystemExit("needs node-opcua: run `npm ci` in tests/interop")
    found: dict[str, Any] = {load: measure(load, arguments) for load in ("uniform", "mixed")}
    with feeder(5000, 0, "uniform") as url:
        found["subscribe"] = client("subscribe", url, 5000, 60, 100)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
