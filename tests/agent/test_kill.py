"""kill -9 of the whole agent in the middle of a stream: what the broker was given is in the store, once."""

import math
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

SIGNALS = 8
MESSAGES = 20_000
START = 1_763_900_000_000_000_000


class Publisher:
    """Publishes MESSAGES numbered readings at QoS 1, and knows how many the broker has taken."""

    def __init__(self, broker: Any) -> None:
        self.taken = 0
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="publisher")
        self._client.username_pw_set(broker.user, broker.password)
        self._client.max_inflight_messages_set(200)
        self._client.on_publish = self._on_publish
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._publish)

    def _on_publish(self, *_: Any) -> None:
        self.taken += 1

    def _publish(self) -> None:
        for number in range(MESSAGES):
            topic = f"fieldlab/drachten/shavers/3/robot-{number % SIGNALS}/load"
            time = START + number * 1_000_000
            self._client.publish(topic, f'{{"value": {number}, "ts": {time}}}', qos=1)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()


def source(broker: Any) -> str:
    return (
        f'[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        f'password_file = "{broker.password_file}"\ntopics = ["fieldlab/#"]\n'
    )


@pytest.fixture(params=["embedded", "influxdb"])
def store(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[Any], tuple[int, float]]]]:
    """A store's table, and how to ask it for the count and the sum of all values."""
    if request.param == "embedded":

        def ask(agent: Any) -> tuple[int, float]:
            columns = [agent.query(f"telemetry?signal=drachten/shavers/3/robot-{i}/load") for i in range(SIGNALS)]
            values = [v for c in columns for v in c["value"] if v is not None]
            return len(values), sum(values)

        yield '[[store]]\nkind = "embedded"\n', ask
        return
    influxd = request.getfixturevalue("influxd")
    database = influxd.create_database()

    def ask_influx(_: Any) -> tuple[int, float]:
        rows = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)
        return (rows[0]["count"], rows[0]["sum"]) if rows else (0, 0.0)

    yield f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n', ask_influx


def test_three_kills_under_20_000_messages_lose_and_double_nothing(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    store: tuple[str, Callable[[Any], tuple[int, float]]],
    wait_until: Callable[..., Any],
) -> None:
    table, ask = store
    broker = mosquitto(max_inflight_messages=0)
    process = agent(table + source(broker))
    process.start()
    moments = sorted(random.Random(7).sample(range(MESSAGES // 10, MESSAGES - MESSAGES // 10), 3))
    print("kills after", moments, "messages")
    with Publisher(broker) as publisher:
        for moment in moments:
            wait_until(lambda moment=moment: publisher.taken >= moment, 120.0, f"the broker took {moment} messages")
            process.kill()
            process.start()
    wait_until(lambda: publisher.taken == MESSAGES, 60.0, "the broker took everything")
    expected = (MESSAGES, math.fsum(range(MESSAGES)))
    wait_until(lambda: ask(process) == expected, 60.0, f"{expected} in the store; now {ask(process)}")
    ledger = process.status()["ledger"]
    print("ledger", ledger)
    assert ledger["received"] == ledger["committed"] + ledger["duplicate"] + ledger["rejected"]
    assert ledger["committed"] - ledger["bad"] == MESSAGES
    wait_until(lambda: process.status()["ledger"]["stored"] == process.status()["ledger"]["committed"], 20.0)
    assert process.stop() == 0
