"""The naive path beside ours, on one load and one store, in one run: CPU seconds per million values.

    python -m benchmarks.end_to_end [--signals 1000] [--rate 10] [--seconds 15]

Load: a node-opcua server. Store: VictoriaMetrics. Naive: naive.py. Ours: `fieldlab agent`, which also fsyncs each
commit, keeps identity and ledger, and has an individuals chart on every signal over 10 s windows. Both are one process;
only its own CPU counts.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from fieldlab.cli.common import ask_agent

HERE = Path(__file__).parent
NODE_MODULES = HERE.parent.parent / "tests" / "interop" / "node_modules"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"nothing listens on port {port}")


def measure_naive(url: str, influx: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        str(HERE / "naive.py"),
        url,
        influx,
        str(arguments.signals),
        str(arguments.seconds),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=arguments.seconds + 120)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_ours(url: str, influx: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (folder / "token").write_text("t")
    (folder / "token").chmod(0o600)
    lines = ['[agent]\nname = "benchmark"\ndata = "data"\nhttp = ""\n']
    lines.append(
        f'[[store]]\nkind = "influxdb"\nurl = "{influx}"\napi = "v2"\n'
        'org = "o"\nbucket = "telemetry"\ntoken_file = "token"\n'
    )
    lines.append(
        f'[[source]]\nkind = "opcua"\nmachine = "load"\nurl = "{url}"\nsecurity = "none"\ninterval = "100ms"\n'
    )
    lines += [
        f'[[source.signal]]\nname = "v{i}"\nnode = "nsu=urn:fieldlab:benchmark;s=v{i}"\n'
        for i in range(arguments.signals)
    ]
    lines.append('[[chart]]\nname = "all"\nkind = "individuals"\nsignals = ["load/*"]\nper = "10s"\n')
    (folder / "fieldlab.toml").write_text("\n".join(lines))
    with (folder / "agent.log").open("w") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "fieldlab.cli", "agent", str(folder / "fieldlab.toml")], stderr=log
        )
    try:
        process = psutil.Process(agent.pid)
        end = time.monotonic() + 60
        while not ((s := ask_agent(folder / "data", "/status")) and s["ledger"]["stored"] > 0):
            if time.monotonic() > end or agent.poll() is not None:
                raise SystemExit((folder / "agent.log").read_text()[-3000:])
            time.sleep(0.2)
        time.sleep(2)
        before, cpu = ask_agent(folder / "data", "/status")["ledger"], sum(process.cpu_times()[:2])
        time.sleep(arguments.seconds)
        cpu = sum(process.cpu_times()[:2]) - cpu
        after = ask_agent(folder / "data", "/status")["ledger"]
        memory = process.memory_info().rss / 1e6
        return {
            "values": after["committed"] - before["committed"],
            "stored": after["stored"] - before["stored"],
            "cpu_s": cpu,
            "rss_mb": round(memory),
        }
    finally:
        agent.terminate()
        agent.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()
    for binary, package in (("victoria-metrics", "victoria-metrics"), ("node", "nodejs")):
        if shutil.which(binary) is None:
            raise SystemExit(f"needs {binary}: install Debian's package {package}")
    if not NODE_MODULES.is_dir():
        raise SystemExit("needs node-opcua: run `npm ci` in tests/interop")
    opcua, influx = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = subprocess.Popen(
            ["victoria-metrics", f"-storageDataPath={folder}/vm", f"-httpListenAddr=127.0.0.1:{influx}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        feeder = subprocess.Popen(
            ["node", str(HERE / "feeder.js"), str(opcua), str(arguments.signals), str(arguments.rate)],
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "NODE_PATH": str(NODE_MODULES), "HOME": name},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_port(influx)
            wait_for_port(opcua)
            url, write = f"opc.tcp://127.0.0.1:{opcua}", f"http://127.0.0.1:{influx}"
            found = {
                "naive": measure_naive(url, write, arguments, folder),
                "fieldlab": measure_ours(url, write, arguments, folder),
            }
        finally:
            feeder.kill()
            store.kill()
    for path in found.values():
        path["cpu_s_per_million"] = round(path["cpu_s"] / path["values"] * 1e6, 2)
        path["values_per_s"] = round(path["values"] / arguments.seconds)
    found["ratio"] = round(found["naive"]["cpu_s_per_million"] / found["fieldlab"]["cpu_s_per_million"], 2)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
