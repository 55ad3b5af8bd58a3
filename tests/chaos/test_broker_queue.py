"""Holding moves the loss to the broker's queue: what that drops is told, on the ledger and in the metrics."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

START = 1_763_900_000_000_000_000
BLOCK = 1000  # readings a message
QUEUE = 50  # messages that the broker keeps, at most, beyond those in flight


def test_what_the_brokers_queue_drops_while_it_is_held_and_while_we_are_away_is_told(
    mosquitto: Callable[..., Any],
    influxd_factory: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker = mosquitto(max_queued_messages=QUEUE, config=["sys_interval 1"])
    influxd = influxd_factory()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{influxd.create_database()}"\n'
    address = f"127.0.0.1:{free_port()}"
    process = agent(store + mqtt_source(broker, "in_flight = 100\n"), http=address, keys='journal_max = "3MB"').start()
    publisher = publish(broker)
    sent = 0

    def send(messages: int) -> None:
        nonlocal sent
        for _ in range(messages):  # one by one, as machines do: the queue is short
            values = list(range(sent, sent + BLOCK))
            sent += BLOCK
            payload = {"value": values, "ts": [START + v * 10**6 for v in values]}
            publisher.send([("fieldlab/x/y/z/cnc-07/load", json.dumps(payload))])

    def dropped() -> int:
        return int(process.status()["sources"][0]["counters"].get("broker_dropped", -1))

    def overflows() -> list[dict[str, Any]]:
        gaps = process.status()["gaps"]["newest"]
        return [gap for gap in gaps if gap["cause"] == "queue_overflow"]

    def told() -> str:
        return " ".join(str(gap["detail"]) for gap in overflows())

    send(1)
    wait_until(lambda: process.ledger()["stored"] == sent and dropped() == 0, 30.0, "the broker has told its counter")
    influxd.stop()
    while not process.status()["journal"]["full"]:
        send(5)
    send(QUEUE + 200)
    influxd.start()
    wait_until(dropped, 30.0, "the broker says what it dropped")
    wait_until(lambda: process.ledger()["committed"] == sent - dropped() * BLOCK, 60.0, "what was not, is here")
    held = dropped()
    wait_until(lambda: f", {held} since it started" in told(), 10.0, "a gap says it")

    process.kill()
    send(QUEUE + 30)
    process.start()
    wait_until(lambda: dropped() > held, 30.0, "the broker says what it dropped meanwhile")
    wait_until(lambda: process.ledger()["committed"] == sent - dropped() * BLOCK, 60.0)
    wait_until(lambda: f", {dropped()} since it started" in told(), 10.0, "the gap goes on, or another one says it")
    assert {gap["state"] for gap in overflows()} == {"unverifiable"}
    wait_until(lambda: process.ledger()["stored"] == sent - dropped() * BLOCK, 60.0)
    ledger = adds_up(process)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    metrics = direct.open(f"http://{address}/metrics", timeout=20).read().decode()
    assert f'fieldlab_source_figure{{figure="broker_dropped",source="mqtt-0"}} {float(dropped())}' in metrics
    report = fieldlab("report", "ledger", "--config", process.config).out
    assert "max_queued_messages" in report
    tell(
        sent=sent,
        committed=ledger["committed"],
        stored=ledger["stored"],
        dead=ledger["dead"],
        lost=sent - ledger["stored"],
        dropped_by_the_broker=dropped() * BLOCK,
        of_these_while_held=held * BLOCK,
    )
    assert ledger["stored"] == sent - dropped() * BLOCK, "nothing else is lost"
    assert process.stop() == 0
    assert process.troubles == []
