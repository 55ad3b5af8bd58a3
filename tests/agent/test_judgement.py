"""Judgement is exactly once: an agent killed five times tells the same as one left alone, row by row."""

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

START = 1_763_900_000_000_000_000
SECOND = 1_000_000_000
PARTS = 200
SHIFTED = range(120, 135)  # parts made while the tool is worn
TOLD = ("finding", "part", "part_event", "chart")
CHARTS = """
[[signal]]
match = "cnc-07/diameter"
unit = "mm"
lsl = 24.9
usl = 25.1
[[chart]]
name = "size"
kind = "individuals"
signals = ["cnc-07/diameter"]
baseline = 40
arl0 = 100000
[[chart]]
name = "drift"
kind = "ewma"
signals = ["cnc-07/diameter"]
baseline = 40
arl0 = 100000
[[part]]
machine = "cnc-07"
id = "part_id"
genealogy = ["tool"]
"""


def messages() -> list[tuple[str, str]]:
    """What the machine says: each part's id, five readings of its diameter and now and then a new tool."""
    noise = random.Random(5)
    found = []

    def say(signal: str, time: int, value: object) -> None:
        payload = json.dumps({"value": value, "ts": time})
        found.append((f"fieldlab/drachten/shavers/3/cnc-07/{signal}", payload))

    for part in range(PARTS):
        at = START + part * 10 * SECOND
        say("part_id", at, f"P{part:04d}")
        if part % 50 == 0:
            say("tool", at + 1, f"T{part // 50}")
        middle = 25.0 + noise.gauss(0, 0.01) + (0.08 if part in SHIFTED else 0.0)
        for reading in range(5):
            say("diameter", at + (reading + 1) * SECOND, round(middle + noise.gauss(0, 0.001), 6))
    return found


class Listener:
    """Hears verdicts and findings as another system on the floor would."""

    def __init__(self, broker: Any) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.subscribed = False
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener")
        self._client.username_pw_set(broker.user, broker.password)
        self._client.on_message = lambda _, __, m: self.heard.append((m.topic, json.loads(m.payload)))
        self._client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe([(f"fieldlab/+/+/+/+/{name}", 1) for name in ("_finding", "_part")])
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listen(wait_until: Callable[..., Any]) -> Iterator[Callable[[Any], Listener]]:
    made: list[Listener] = []

    def connect(broker: Any) -> Listener:
        made.append(Listener(broker))
        wait_until(lambda: made[-1].subscribed)
        return made[-1]

    yield connect
    for each in made:
        each.close()


def test_kills_change_no_judgement(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    listen: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    databases = {name: influxd.create_database() for name in ("calm", "killed")}
    tell = (
        f'[[store]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        f'password_file = "{broker.password_file}"\n'
    )
    made = {}
    for name, database in databases.items():
        store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
        more = tell if name == "killed" else ""
        made[name] = agent(store + more + mqtt_source(broker) + CHARTS, name).start()
    listener = listen(broker)
    stream = messages()
    cuts = [0, *sorted(random.Random(8).sample(range(100, len(stream) - 100), 6)), len(stream)]
    publisher = publish(broker)
    for number, (start, end) in enumerate(pairwise(cuts)):
        publisher.send(stream[start:end])
        if end < len(stream):
            if number % 2:  # some in the middle of the backlog, some when it has been judged
                wait_until(made["killed"].settled, 30.0)
            if number == 1:  # a snapshot of the judgement, which those after it go on from
                assert made["killed"].stop() == 0
            else:
                made["killed"].kill()
            made["killed"].start()

    def rows(name: str, measurement: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = influxd.query(f"SELECT * FROM {measurement}", databases[name])
        return found

    for name, process in made.items():
        wait_until(lambda name=name: len(rows(name, "part")) == PARTS - 1, 60.0, f"all parts of {name} are judged")
        wait_until(process.settled, 30.0)
        ledger = process.ledger()
        assert ledger["committed"] == ledger["stored"] == len(stream)

    for measurement in TOLD:
        assert rows("killed", measurement) == rows("calm", measurement), measurement
    findings = rows("calm", "finding")
    assert {f["chart"] for f in findings} == {"size", "drift"}
    for chart in ("size", "drift"):
        assert [(f["revision"], f["state"]) for f in findings if f["chart"] == chart] == [
            (1, "raised"),
            (2, "cleared"),
        ], "one excursion is one finding"
        assert len({f["id"] for f in findings if f["chart"] == chart}) == 1
        raised = next(f for f in findings if f["chart"] == chart)
        assert raised["part"] in {f"P{i:04d}" for i in SHIFTED[:3]}
    verdicts = {v["id"]: v["verdict"] for v in rows("calm", "part")}
    assert {verdicts[f"P{i:04d}"] for i in SHIFTED} <= {"suspect", "fail"}
    assert {verdicts[f"P{i:04d}"] for i in range(41, SHIFTED.start)} == {"pass"}

    def told() -> set[tuple[str, str, int]]:
        return {(t.rpartition("/")[2], m["id"], m.get("revision", 0)) for t, m in listener.heard}

    expected = {("_finding", f["id"], f["revision"]) for f in findings}
    expected |= {("_part", v["id"], v["revision"]) for v in rows("calm", "part")}
    wait_until(lambda: expected <= told(), 30.0, "every finding and verdict was told on MQTT")
    assert {m["type"] for _, m in listener.heard} == {"finding", "verdict", "event"}
    assert [process.stop() for process in made.values()] == [0, 0]
    assert made["calm"].troubles == made["killed"].troubles == []


def test_limits_of_the_first_part_are_known_from_the_start(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    """A part that ends within the agent's first second is judged by its specification too; so after a restart."""
    broker = mosquitto()
    process = agent(mqtt_source(broker) + CHARTS)
    process.start()
    publisher = publish(broker)
    topic = "fieldlab/drachten/shavers/3/cnc-07/"

    def part(number: int) -> list[tuple[str, str]]:
        at = START + number * 10 * SECOND
        return [
            (f"{topic}part_id", json.dumps({"value": f"P{number}", "ts": at})),
            (f"{topic}diameter", json.dumps({"value": 26.0, "ts": at + SECOND})),
        ]

    for first in (0, 3):
        publisher.send([message for number in range(first, first + 3) for message in part(number)])
        done = {f"P{i}" for i in range(first + 2)}
        wait_until(lambda done=done: done <= {v["id"] for v in process.query("verdicts")}, 20.0, "verdicts")
        process.kill()
        process.start()
    verdicts = {v["id"]: v for v in process.query("verdicts")}
    assert {v["verdict"] for v in verdicts.values()} == {"fail"}, verdicts
    assert "above USL 25.1 mm" in verdicts["P0"]["reasons"][0]
    assert process.stop() == 0


def test_a_part_id_that_never_changes_is_a_warning(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    parts = '[[part]]\nmachine = "cnc-07"\nid = "part_id"\nlongest = "1min"\n'
    process = agent(mqtt_source(broker) + parts).start()
    topic = "fieldlab/drachten/shavers/3/cnc-07/"
    stream = [(f"{topic}part_id", json.dumps({"value": "P1", "ts": START}))]
    stream += [(f"{topic}load", json.dumps({"value": 1.0, "ts": START + i * SECOND})) for i in range(1, 90)]
    publish(broker).send(stream)
    (finding,) = wait_until(lambda: process.query("findings"), 20.0, "the finding")
    assert (finding["chart"], finding["severity"], finding["state"]) == ("part-id", "warning", "raised")
    assert "part_id" in finding["detail"]
    assert "P1" in finding["detail"]
    assert process.stop() == 0
