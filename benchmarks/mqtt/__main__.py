"""CPU per message at QoS 1 through a real mosquitto: our source, plain paho, mosquitto_sub; in turn, in one run.

    python -m benchmarks.mqtt [--messages 60000] [--rounds 5] [--no-tls] [--only single|arrays|tls|paced|latency]

Broker and feeder share one core, the measured process has another (where there are two). Only the measured process
counts, from its subscription to its last message. Every round runs everybody in turn; a ratio is the median of the
ratios within the rounds, with the smallest and the largest and the machine's load average at the end: on a busy machine
packets come in smaller lots, which costs us more than those that take them one by one. What each one does:

- `ours-null`: receive, parse topic and JSON into columns, acknowledge. Before the journal: what `paho-json` does.
- `ours-journal`: the same, and everything is fsynced in the journal before it is acknowledged.
- `paho`: receive, acknowledge. `paho-json`: json.loads, too.
- `mosquitto_sub`: receive, print to /dev/null, acknowledge. It parses nothing.

`single` is as fast as the broker can, with one value a message; `arrays` has 100 values a message; `tls` is both over
TLS, for everybody; `paced` is 2,000 messages a second. `latency` is the age of a reading when it is handed to the
journal, with and without `gather`.
"""

# ruff: noqa: PLW1509  # nothing runs beside the thread that starts them

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def on_core(index: int) -> Any:
    core = {CORES[index % len(CORES)]}
    return lambda: os.sched_setaffinity(0, core)


def certificates(folder: Path) -> None:
    """An authority and a server certificate for 127.0.0.1, by openssl."""
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    for command in (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -extfile san",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def start_broker(folder: Path, port: int, tls_port: int) -> "subprocess.Popen[bytes]":
    tls = f"listener {tls_port} 127.0.0.1\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\n{tls if tls_port else ''}allow_anonymous true\npersistence false\n"
        "max_queued_messages 0\nmax_inflight_messages 2000\nlog_dest none\nuser root\n"
    )
    binary = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if binary is None or shutil.which("mosquitto_sub") is None:
        raise SystemExit("needs mosquitto and mosquitto_sub: install Debian's packages mosquitto and mosquitto-clients")
    broker = subprocess.Popen([binary, "-c", str(folder / "mosquitto.conf")], preexec_fn=on_core(0))
    for each in filter(None, (port, tls_port)):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", each), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise SystemExit(f"mosquitto does not listen on port {each}")
    return broker


def feed(port: int, count: int, values: int, rate: int = 0) -> None:
    command = [sys.executable, str(HERE / "feeder.py"), "127.0.0.1", str(port), str(count), str(values), str(rate)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, preexec_fn=on_core(0))


def measure_python(name: str, port: int, feed_port: int, count: int, values: int, ca: str, rate: int = 0) -> Any:
    url = f"mqtt{'s' if ca and name.startswith(('ours', 'latency')) else ''}://127.0.0.1:{port}"
    command = [sys.executable, str(HERE / "subscribers.py"), name, url, str(count), ca]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=on_core(1), cwd=HERE.parent.parent,
        env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name} did not subscribe")
        feed(feed_port, count, values, rate)
        found = json.loads(process.stdout.readline())
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}")
    return found


def measure_mosquitto_sub(port: int, feed_port: int, count: int, values: int, ca: str, rate: int) -> dict[str, Any]:
    command = ["mosquitto_sub", "-p", str(port), "-h", "127.0.0.1", "-t", "fieldlab/#", "-q", "1", "-C", str(count)]
    if ca:
        command += ["--cafile", ca]
    with Path(os.devnull).open("w") as null:
        process = subprocess.Popen(command, stdout=null, preexec_fn=on_core(1))
    time.sleep(1.0)  # it does not say when it is subscribed
    before = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) / 1e9
    began = time.monotonic()
    feed(feed_port, count, values, rate)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"mosquitto_sub ended with {process.returncode}")
    spent = usage.ru_utime + usage.ru_stime - before
    return {"cpu_s": spent, "wall_s": time.monotonic() - began, "messages": count}


def compare(
    names: tuple[str, ...], port: int, feed_port: int, count: int, values: int, ca: str, rounds: int, rate: int = 0
) -> Any:
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            if name == "mosquitto_sub":
                one = measure_mosquitto_sub(port, feed_port, count, values, ca, rate)
            else:
                one = measure_python(name, port, feed_port, count, values, ca, rate)
            if one["messages"] != count or one.get("readings", count * values) != count * values:
                raise SystemExit(f"{name} took {one}, of {count} messages")
            found[name].append(one["cpu_s"] / count * 1e6)
            print(f"{name:14s} {found[name][-1]:7.2f} us CPU, {count / one['wall_s']:7.0f} msg/s", file=sys.stderr)
    ratios = {
        f"{ours} / {peer}": spread([a / b for a, b in zip(found[ours], found[peer], strict=True)])
        for ours in names
        if ours.startswith("ours")
        for peer in names
        if not peer.startswith("ours")
    }
    cost = {name: round(statistics.median(costs), 2) for name, costs in found.items()}
    return {"cpu_us_per_message": cost, "ratios": ratios, "load_average": round(os.getloadavg()[0], 2)}


def spread(ratios: list[float]) -> dict[str, float]:
    """The median of the rounds, and how far they lie apart."""
    return {name: round(of(ratios), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def latency(port: int, rounds: int) -> dict[str, Any]:
    """Median over the rounds of p50 and p99 of a reading's age, by rate; `added`: with `gather` less without."""
    found: dict[str, Any] = {}
    for rate, count in ((500, 2000), (10_000, 30_000)):
        ages: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, gather in (("without", "0"), ("with", "default")):
                one = measure_python(f"latency-{gather}", port, port, count, 1, "", rate)
                for q in ("p50", "p99"):
                    ages.setdefault(f"{q} {name} gather", []).append(one[f"{q}_ms"])
        middle = {name: round(statistics.median(each), 2) for name, each in ages.items()}
        added = {
            f"added at {q}": round(middle[f"{q} with gather"] - middle[f"{q} without gather"], 2)
            for q in ("p50", "p99")
        }
        found[f"{rate} messages/s"] = middle | added
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-tls", action="store_true")
    parser.add_argument("--only", choices=["single", "arrays", "tls", "paced", "latency"])
    arguments = parser.parse_args()
    count, rounds, only = arguments.messages, arguments.rounds, arguments.only
    result: dict[str, Any] = {"messages": count, "rounds": rounds}
    port, tls_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        certificates(folder)
        broker = start_broker(folder, port, 0 if arguments.no_tls else tls_port)
        names = ("ours-journal", "ours-null", "paho", "paho-json", "mosquitto_sub")
        try:
            if only in (None, "single"):
                result["single"] = compare(names, port, port, count, 1, "", rounds)
            if only in (None, "arrays"):
                few = ("ours-journal", "ours-null", "paho-json")
                result["arrays_of_100"] = compare(few, port, port, max(count // 3, 1), 100, "", rounds)
            if only in (None, "arrays", "tls") and not arguments.no_tls:
                few, ca = ("ours-null", "paho-json", "mosquitto_sub"), str(folder / "ca.pem")
                result["arrays_of_100_tls"] = compare(few, tls_port, port, max(count // 3, 1), 100, ca, rounds)
            if only in (None, "tls") and not arguments.no_tls:
                ca = str(folder / "ca.pem")
                result["tls"] = compare(names, tls_port, port, count, 1, ca, rounds)
            if only in (None, "paced"):
                few = ("ours-null", "paho-json", "mosquitto_sub")
                result["paced_2000_per_s"] = compare(few, port, port, max(count // 6, 1), 1, "", rounds, 2000)
            if only in (None, "latency"):
                result["latency_ms"] = latency(port, rounds)
        finally:
            broker.terminate()
            broker.wait(10)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
