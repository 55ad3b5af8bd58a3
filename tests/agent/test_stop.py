"""SIGTERM at any moment: exit 0, nothing lost, and a log that says no more than that."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

START = 1_763_900_000_000_000_000
MESSAGES = 20_000


def readings(count: int) -> list[tuple[str, str]]:
    return [
        (f"fieldlab/drachten/shavers/3/robot-{i % 8}/load", json.dumps({"value": i, "ts": START + i * 1_000_000}))
        for i in range(count)
    ]


def test_stops_under_heavy_load_lose_nothing(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker, database = mosquitto(max_inflight_messages=0), influxd.create_database()
    chart = '[[chart]]\nsignals = ["robot-*/load"]\nper = "1s"\nbaseline = 20\n'
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker) + chart).start()
    publisher = publish(broker)
    stream = threading.Thread(target=publisher.send, args=(readings(MESSAGES),))
    stream.start()
    for moment in (3_000, 9_000, 15_000):
        wait_until(lambda moment=moment: publisher.taken >= moment, 60.0)
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 12
        process.start()
    stream.join()
    wait_until(lambda: process.ledger()["committed"] - process.ledger()["bad"] == MESSAGES, 60.0, "all committed")
    wait_until(process.settled, 60.0, "all stored")
    (row,) = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)
    assert (row["count"], row["sum"]) == (MESSAGES, sum(range(MESSAGES)))
    ledger = process.ledger()
    assert ledger["committed"] == ledger["stored"]
    assert ledger["lost"] == ledger["dead"] == 0
    assert process.stop() == 0
    assert process.troubles == []
    assert [e["event"] for e in process.log].count("agent_stopped") == 4


def test_a_store_that_never_answers_does_not_hold_the_end(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = f'[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:{silent.getsockname()[1]}"\ntimeout = "30s"\n'
        process = agent(store + mqtt_source(broker := mosquitto())).start()
        publish(broker).send(readings(100))
        wait_until(lambda: process.ledger()["committed"] == 100, 20.0)
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 15
        assert process.troubles == []
        process.start()
        assert process.ledger()["committed"] == 100
        process.kill()


def test_a_stop_at_any_moment_of_the_start(agent: Callable[..., Any], wait_until: Callable[..., Any]) -> None:
    process = agent('[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:1"\n')
    process.start(connected=False)
    assert process.stop() == 0
    started = [e["event"] for e in process.log].count("agent_started")
    process.launch()
    wait_until(lambda: [e["event"] for e in process.log].count("agent_started") > started, 30.0)
    assert process.stop() == 0
    assert process.troubles == []


def test_ctrl_c_is_a_stop(agent: Callable[..., Any]) -> None:
    process = agent('[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:1"\n').start(connected=False)
    os.kill(process.process.pid, signal.SIGINT)
    assert process.process.wait(30) == 0
    process.process = None
    assert process.troubles == []
