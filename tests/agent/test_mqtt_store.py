"""kill -9 of two agents and of the broker between them: what one committed the other has stored, and listeners heard.

Agent A reads a line's broker, and republishes to a plant's broker: natively, and as a Sparkplug B edge node that
waits for its primary host. Agent B is that host.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

import ingest.stores.mqtt

LOST = 0x80310000
MACHINE = "drachten/shavers/3/cnc-07"
START = time.time_ns() // 1_000_000 - 3_600_000  # ms
PHASE = 400  # messages


class Ear:
    """A listener with a persistent session: values of each topic in order of arrival."""

    def __init__(self, broker: Any) -> None:
        self.heard: dict[str, list[Any]] = {}
        self.subscribed = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="ear", clean_session=False)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("uns/#", qos=1)
        self.client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        body = json.loads(message.payload)
        many = isinstance(body["ts"], list)
        times = body["ts"] if many else [body["ts"]]
        values = body["value"] if many else [body.get("value")]
        rows = [(round(at * 1000), value, body.get("status", 0)) for at, value in zip(times, values, strict=True)]
        self.heard.setdefault(message.topic.rpartition("/")[2], []).extend(rows)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def listen(wait_until: Callable[..., Any]) -> Iterator[Callable[[Any], Ear]]:
    with contextlib.ExitStack() as stack:

        def make(broker: Any) -> Ear:
            made = Ear(broker)
            stack.callback(made.close)
            wait_until(lambda: made.subscribed)
            return made

        yield make


def messages(first: int, last: int) -> list[tuple[str, str]]:
    """One signal counts, one counts beyond 2**53, one is text, one is sometimes Bad: by `i`, each time its own."""
    found = []
    for i in range(first, last):
        body: dict[str, Any] = {"ts": START + i, "status": 0}
        name, value = [("load", i / 8), ("count", 2**60 + i), ("program", f"O{i}"), ("torque", float(i))][i % 4]
        if name == "torque" and i % 8 == 3:
            body["status"] = 0x800A0000  # BadTimeout: no value
        else:
            body["value"] = value
        found.append((f"fieldlab/{MACHINE}/{name}", json.dumps(body)))
    return found


def expected(last: int) -> dict[str, list[tuple[int, Any, int]]]:
    found: dict[str, list[tuple[int, Any, int]]] = {}
    for topic, payload in messages(0, last):
        body = json.loads(payload)
        found.setdefault(topic.rpartition("/")[2], []).append((body["ts"], body.get("value"), body["status"]))
    return found


def in_store(process: Any, name: str) -> list[tuple[int, Any, int]]:
    column = process.query(f"telemetry?signal={MACHINE}/{name}")
    return [
        (at // 1_000_000, value, status)
        for at, value, status in zip(column["time"], column["value"], column["status"], strict=True)
        if status != LOST
    ]


def in_order(heard: list[Any], told: list[Any]) -> bool:
    """Everything came, in order but for repeats: nothing comes before what goes before it has come."""
    place = {row: i for i, row in enumerate(told)}
    newest = -1
    for row in heard:
        if place[row] > newest + 1:
            return False
        newest = max(newest, place[row])
    return newest == len(told) - 1


def test_kills_on_the_way_from_agent_to_agent_lose_nothing(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[[Any], Any],
    mqtt_source: Callable[..., str],
    listen: Callable[[Any], Ear],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    line, plant = mosquitto(), mosquitto(max_inflight_messages=0)
    to_plant = (
        f'kind = "mqtt"\nurl = "{plant.url}"\nusername = "{plant.user}"\npassword_file = "{plant.password_file}"\n'
    )
    a = agent(
        f'[[store]]\nkind = "embedded"\n[[store]]\n{to_plant}name = "uns"\nreadings = true\nprefix = "uns"\n'
        f'[[store]]\n{to_plant}name = "spark"\nformat = "sparkplug"\n'
        f'[store.sparkplug]\ngroup = "plant"\nhost = "b"\n{mqtt_source(line)}',
        name="a",
    )
    b = agent(f'[[store]]\nkind = "embedded"\n[[source]]\n{to_plant}format = "sparkplug"\n', name="b")
    ear, sender = listen(plant), publish(line)
    a.start()
    wait_until(lambda: "is not online" in a.consumer("spark")["error"], 30.0, "it waits for its host")
    b.start()

    def stored(process: Any) -> int:
        return sum(len(set(in_store(process, name))) for name in ("load", "count", "program", "torque"))

    def caught_up(last: int) -> bool:
        return bool(stored(a) == stored(b) == last and a.settled() and b.settled())

    sender.send(messages(0, PHASE), wait=False)
    wait_until(lambda: a.ledger()["committed"] > PHASE // 4, 30.0)
    a.kill()
    a.start()
    wait_until(lambda: sender.taken == PHASE)
    sender.send(messages(PHASE, 2 * PHASE), wait=False)
    b.kill()
    b.start()
    wait_until(lambda: caught_up(2 * PHASE), 60.0, "after both agents were killed")

    database = plant.folder / "mosquitto.db"
    os.kill(plant.pid, signal.SIGUSR1)  # the broker saves its sessions
    wait_until(database.exists, 20.0)
    plant.kill()
    sender.send(messages(2 * PHASE, 3 * PHASE))
    wait_until(lambda: a.ledger()["committed"] == 3 * PHASE, 30.0)
    wait_until(lambda: all(a.consumer(name)["error"] for name in ("uns", "spark")), 30.0)
    assert all(a.consumer(name)["lag_readings"] >= PHASE for name in ("uns", "spark"))
    plant.start()
    wait_until(lambda: caught_up(3 * PHASE), 90.0, "after the broker was killed")
    assert b.status()["sources"][0]["counters"]["historical"] >= PHASE

    told = expected(3 * PHASE)
    wait_until(lambda: all(set(rows) <= set(ear.heard.get(name, ())) for name, rows in told.items()))
    for name, rows in told.items():
        assert in_order(ear.heard[name], rows), name
        wanted = [(at, float(v) if isinstance(v, int) else v, status) for at, v, status in rows]
        assert sorted(set(in_store(b, name))) == sorted(set(in_store(a, name))) == sorted(wanted), name
    ledgers = {store["name"]: store for store in a.status()["ledger_stores"]}
    for name in ("embedded", "uns", "spark"):
        assert (ledgers[name]["stored"], ledgers[name]["dead"], ledgers[name]["waiting"]) == (3 * PHASE, 0, 0)
    assert fieldlab("report", "ledger", "--config", a.config).code == 0
    assert b.ledger()["rejected"] == 0
    assert (a.stop(), b.stop()) == (0, 0)
    assert a.troubles == b.troubles == []


FOLDER = Path(ingest.stores.mqtt.__file__).parent


@pytest.mark.parametrize(
    ("sample", "topic"),
    [("unified-namespace", f"fieldlab/{MACHINE}/load"), ("edge-node", "spBv1.0/shavers/DDATA/line-3/3-cnc-07")],
)
def test_the_samples_run(
    sample: str,
    topic: str,
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[[Any], Any],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    line, plant = mosquitto(anonymous=True), mosquitto(anonymous=True)
    text = (FOLDER / f"{sample}.toml").read_text("utf-8")
    text = text.replace("mqtt://127.0.0.1:1883", line.url).replace("mqtt://127.0.0.1:1884", plant.url)
    process = agent("")
    process.config.write_text(text.replace('data = "var/line-3"', 'data = "data"\nhttp = ""'), "utf-8")
    topics: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _u, message: topics.append(message.topic)
    client.connect("127.0.0.1", plant.port)
    client.subscribe("#", 1)
    client.loop_start()
    try:
        if sample == "edge-node":
            done = fieldlab("check", process.config)
            assert (done.code, "edge node shavers/line-3" in done.out) == (0, True)
        process.start()
        publish(line).send(messages(0, 8))
        wait_until(lambda: topic in topics and process.ledger()["committed"] == 8 and process.settled(), 30.0)
        (uns,) = [store for store in process.status()["ledger_stores"] if store["name"] != "embedded"]
        assert (uns["stored"], uns["left_out"], uns["waiting"]) == (8, 0, 0)
        assert process.stop() == 0
    finally:
        client.disconnect()
        client.loop_stop()


def test_what_the_broker_refused_is_sent_again_after_a_repair(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[[Any], Any],
    mqtt_source: Callable[..., str],
    listen: Callable[[Any], Ear],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    rights = tmp_path / "acl"
    births = "topic write spBv1.0/plant/+/a\ntopic write spBv1.0/plant/DBIRTH/#\n"
    rights.write_text(f"user fieldlab\ntopic read #\ntopic write uns/+/+/+/+/load\n{births}")
    rights.chmod(0o600)
    line, plant = mosquitto(), mosquitto(config=[f"acl_file {rights}"])
    to_plant = (
        f'kind = "mqtt"\nurl = "{plant.url}"\nusername = "{plant.user}"\npassword_file = "{plant.password_file}"\n'
    )
    process = agent(
        f'[[store]]\n{to_plant}name = "uns"\nreadings = true\nprefix = "uns"\n'
        f'[[store]]\n{to_plant}name = "spark"\nformat = "sparkplug"\nsparkplug = {{group = "plant"}}\n'
        f"{mqtt_source(line)}",
        name="a",
    )
    ear = listen(plant)
    process.start()
    publish(line).send(messages(0, 16))
    wait_until(lambda: process.ledger()["committed"] == 16 and process.settled(), 30.0)

    def letters() -> list[dict[str, Any]]:
        done = fieldlab("deadletter", "list", "--config", process.config, "--json")
        found: list[dict[str, Any]] = json.loads(done.out)["deadletters"]
        return found

    def readings(store: str) -> int:
        return sum(letter["readings"] for letter in listed if letter["store"] == store)

    listed = letters()
    assert {letter["reason"] for letter in listed} == {"Not authorized"}
    assert (readings("uns"), readings("spark")) == (12, 16)
    rights.write_text("user fieldlab\ntopic readwrite #\n")
    plant.restart()
    wait_until(lambda: fieldlab("deadletter", "replay", "--all", "--config", process.config).code == 0, 60.0)
    assert letters() == []
    stores = {store["name"]: (store["stored"], store["dead"]) for store in process.status()["ledger_stores"]}
    assert stores == {"uns": (16, 0), "spark": (16, 0)}
    told = {name: set(rows) for name, rows in expected(16).items()}
    wait_until(lambda: {name: set(rows) for name, rows in ear.heard.items()} == told, what="at least once")
    assert fieldlab("report", "ledger", "--config", process.config).code == 0
    assert process.stop() == 0
