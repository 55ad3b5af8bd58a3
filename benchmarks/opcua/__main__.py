"""Our OPC UA source beside asyncua's handler mode and node-opcua's client, in one run: CPU microseconds a value.

    python -m benchmarks.opcua [--seconds 8] [--rounds 3] [--only uniform_1000]

Load: a live node-opcua server, which writes every variable `rate` times a second; `values_per_s` beside `asked_per_s`
says whether it managed (responses recorded earlier are not needed, because it does). "uniform" is Double, all Good;
"mixed" is Double, Int32, Boolean, Float and a tenth String, a tenth of the values Bad. All clients ask for the same
publishing interval and get a server of their own; each is a process, and its CPU counts from 5 s after its first value,
network and event loop included. Ours ends at the batch (a sink that has everything at once). The clients take turns;
a ratio is the median of the ratios of the rounds, so that what else the machine does hits all alike. `subscribe` is our
CPU from nothing until 5,000 items have given their first value.
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
from typing import Any, NamedTuple

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


class Load(NamedTuple):
    """What the server does, and how many times cheaper than each peer we must be."""

    kind: str
    items: int
    rate: float
    required: dict[str, float]


LOADS = {
    "uniform_1000": Load("uniform", 1000, 10, {"asyncua": 10, "node-opcua": 2}),
    "uniform_5000": Load("uniform", 5000, 2, {"asyncua": 10, "node-opcua": 2}),
    "mixed_1000": Load("mixed", 1000, 10, {"asyncua": 5, "node-opcua": 2}),
}
SUBSCRIBED = 5000
SUBSCRIBE_CPU_S = 1.0


def measure(load: Load, rounds: int, seconds: float) -> dict[str, Any]:
    """CPU microseconds a value of each client, the ratios, and whether they are what is required."""
    costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
    rates: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name in CLIENTS:
            # A server of its own for each: what one client leaves there must not cost the next.
            with feeder(load.items, load.rate, load.kind) as url:
                found = client(name, url, load.items, seconds, 1000 / load.rate)
            if not found["values"]:
                raise SystemExit(f"{name} received nothing of {load}")
            costs[name].append(found["cpu_s"] / found["values"] * 1e6)
            rates[name].append(found["values"] / found["seconds"])
            print(f"{load.kind} {load.items} {name}: {costs[name][-1]:.2f} us a value", file=sys.stderr)
    ratios = {
        peer: [round(theirs / ours, 2) for theirs, ours in zip(costs[peer], costs["fieldlab"], strict=True)]
        for peer in load.required
    }
    return {
        "asked_per_s": round(load.items * load.rate),
        "values_per_s": {name: round(statistics.median(r)) for name, r in rates.items()},
        "cpu_us_per_value": {name: round(statistics.median(c), 2) for name, c in costs.items()},
        "times_cheaper": {
            peer: {
                "median": round(statistics.median(ratios[peer]), 1),
                "rounds": ratios[peer],
                "required": required,
                "met": statistics.median(ratios[peer]) >= required,
            }
            for peer, required in load.required.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=LOADS)
    arguments = parser.parse_args()
    if shutil.which("node") is None:
        raise SystemExit("needs node: install Debian's package nodejs")
    if not NODE_MODULES.is_dir():
        raise SystemExit("needs node-opcua: run `npm ci` in tests/interop")
    chosen = [arguments.only] if arguments.only else list(LOADS)
    found: dict[str, Any] = {name: measure(LOADS[name], arguments.rounds, arguments.seconds) for name in chosen}
    with feeder(SUBSCRIBED, 0, "uniform") as url:
        subscribe = client("subscribe", url, SUBSCRIBED, 60, 100)
    found["subscribe"] = {**subscribe, "required_cpu_s": SUBSCRIBE_CPU_S, "met": subscribe["cpu_s"] < SUBSCRIBE_CPU_S}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
