"""kill -9 of the agent, and of the broker, under a Sparkplug B edge node: what was published is in the store, once."""

import base64
import json
import math
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTEROP = Path(__file__).parents[1] / "interop"
START = time.time_ns() // 1_000_000 - 3_600_000  # ms
ROUNDS = 1200
SIGNALS = ("count", "load", "temperature")


def edge_node(node: str) -> list[tuple[str, bytes]]:
    """Births, data and deaths of three sessions of an edge node, by npm's encoder; aliases differ from one to the next.

    Each round is a DDATA with a value of each signal; every value is another number.
    """
    topics: list[str] = []
    payloads: list[dict[str, Any]] = []
    clock = START

    def say(kind: str, seq: int | None, metrics: list[dict[str, Any]], device: str = "") -> None:
        topics.append(f"spBv1.0/plant/{kind}/line-3" + (f"/{device}" if device else ""))
        payloads.append({"timestamp": clock, "metrics": metrics} | ({} if seq is None else {"seq": seq % 256}))

    value = 0
    for session in range(3):
        alias = {name: 10 * session + (i + session) % 3 for i, name in enumerate(SIGNALS)}
        own = {"name": "bdSeq", "type": "UInt64", "value": session}
        clock += 1
        say("NBIRTH", 0, [own])
        for round_ in range(ROUNDS // 3):
            clock += 1
            metrics: list[dict[str, Any]] = []
            for name in SIGNALS:
                value += 1
                named = {"name": name} if not round_ else {}
                kind = "Int64" if name == "count" else "Double"
                metrics.append({**named, "alias": alias[name], "type": kind, "value": value, "timestamp": clock})
            say("DDATA" if round_ else "DBIRTH", round_ + 1, metrics, "cnc-07")
        clock += 1
        say("NDEATH", None, [own])
    done = subprocess.run(
        [node, "sparkplug.js"],
        cwd=INTEROP,
        input="\n".join(map(json.dumps, payloads)).encode() + b"\n",
        capture_output=True,
        check=True,
    )
    return list(zip(topics, map(base64.b64decode, done.stdout.split()), strict=True))


def test_kills_of_agent_and_broker_lose_and_double_nothing(
    sparkplug_payload: str,
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[[Any], Any],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto(max_inflight_messages=0)
    process = agent(
        f'[[store]]\nkind = "embedded"\n[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        f'password_file = "{broker.password_file}"\nformat = "sparkplug"\n'
    )
    process.start()
    messages = edge_node(sparkplug_payload)
    total = len(SIGNALS) * ROUNDS

    def good() -> list[float]:
        found: list[float] = []
        for name in SIGNALS:
            column = process.query(f"telemetry?signal=drachten/shavers/3/cnc-07/{name}")
            found += [v for v, s in zip(column["value"], column["status"], strict=True) if v is not None and not s]
        return found

    database = broker.folder / "mosquitto.db"

    def saved() -> int:
        return database.stat().st_mtime_ns if database.exists() else 0

    def committed() -> int:
        ledger: dict[str, int] = process.ledger()
        return ledger["committed"] - ledger["bad"]

    sender = publish(broker)
    cuts = sorted(random.Random(7).sample(range(100, len(messages) - 100), 4))
    for first, last in zip([0, *cuts], [*cuts, len(messages)], strict=True):
        sender.send(messages[first:last], wait=False)
        wait_until(lambda last=last: sender.taken >= last - 20, 60.0)
        if last == cuts[1]:
            wait_until(lambda last=last: sender.taken == last, 60.0)
            sent = len(SIGNALS) * sum("/cnc-07" in topic for topic, _ in messages[:last])
            wait_until(lambda sent=sent: committed() == sent, 60.0, "a calm moment: it has what was sent")
            wait_until(lambda: process.status()["sources"][0]["counters"]["in_flight"] == 0, 60.0)
            before = saved()
            os.kill(broker.pid, signal.SIGUSR1)  # mosquitto saves its database
            wait_until(lambda before=before: saved() != before, 20.0, "the broker saved")
            broker.kill()
            broker.start()
        elif last != len(messages):
            process.kill()
            process.start()
    wait_until(lambda: sender.taken == len(messages), 60.0)
    wait_until(lambda: committed() >= total, 60.0, "everything is on disk")
    wait_until(process.settled, 60.0)
    values = good()
    assert (len(values), math.fsum(values)) == (total, total * (total + 1) / 2)
    for i, name in enumerate(SIGNALS):
        column = process.query(f"telemetry?signal=drachten/shavers/3/cnc-07/{name}")
        mine = sorted(v for v, s in zip(column["value"], column["status"], strict=True) if v is not None and not s)
        assert mine == [float(v) for v in range(i + 1, total + 1, len(SIGNALS))], "each under its own name"
    ledger = process.ledger()
    assert committed() == total
    assert ledger["stored"] == ledger["committed"]
    letters = json.loads(fieldlab("deadletter", "list", "--config", process.config, "--json").out)["deadletters"]
    assert letters == []
    assert process.stop() == 0
