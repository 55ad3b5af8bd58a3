"""A broker that crashed and comes back with an old file: it has forgotten, and it repeats."""

import os
import signal
from collections.abc import Callable
from typing import Any


def messages(start: int, count: int) -> list[tuple[str, str]]:
    return [
        ("fieldlab/x/y/z/m/a", f'{{"value": {i}, "ts": {1_763_900_000 + i * 0.5:.1f}}}')
        for i in range(start, start + count)
    ]


def saved(broker: Any, wait_until: Callable[..., Any], newest: int) -> None:
    """Have mosquitto write its file now."""
    file = broker.folder / "mosquitto.db"
    os.kill(broker.pid, signal.SIGUSR1)
    wait_until(lambda: file.exists() and f'"value": {newest},'.encode() in file.read_bytes(), 20.0, "the broker saved")


def test_a_broker_with_an_old_file_has_lost_what_it_took_since_and_nobody_is_told(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    database = influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker)).start()
    sender = publish(broker)
    sender.send(messages(0, 10))
    wait_until(lambda: process.ledger()["stored"] == 10 and process.settled(), 30.0)
    assert process.stop() == 0
    sender.send(messages(10, 10))
    saved(broker, wait_until, newest=19)
    sender.send(messages(20, 10))  # the broker takes them, and has them in memory only
    broker.kill()
    broker.start()
    process.start()

    def values() -> list[float]:
        return [
            r["value"]
            for r in influxd.query("SELECT value FROM telemetry WHERE signal = 'a'", database)
            if r["value"] is not None
        ]

    wait_until(lambda: len(values()) >= 20 and process.settled(), 30.0)
    assert values() == [float(i) for i in range(20)]  # 20 to 29 are gone
    states = {gap["state"] for gap in process.status()["gaps"]["newest"]}
    assert states == {"closed"}  # the broker said that it had kept the session, and nothing can contradict it
    broker.kill()  # its file still has 10 to 19 waiting for us, though we have acknowledged them
    broker.start()
    fresh = publish(broker)
    wait_until(lambda: process.status()["sources"][0]["connected"], 30.0)
    fresh.send(messages(30, 1))
    wait_until(lambda: 30.0 in values() and process.settled(), 30.0)
    again = process.ledger()
    print(f"told again: {again}")
    assert again["received"] > 21  # it did repeat them
    assert values() == [float(i) for i in (*range(20), 30)]  # each is once in the store: its time names it
    assert process.stop() == 0
