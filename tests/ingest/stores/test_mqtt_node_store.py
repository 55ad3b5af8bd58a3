"""The edge node at a real broker: its host, its rebirths, its death, and npm's decoder on everything that it says."""

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fieldlab.config import Duration
from fieldlab.model import BatchBuilder, Finding, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from fieldlab.sparkplug import datatypes as t
from fieldlab.sparkplug import payload as p
from fieldlab.sparkplug.encode import encode
from fieldlab.sparkplug.payload import Metric, Payload, Value, decode
from ingest.stores import load_kind
from ingest.stores.base import DeadLetter, StoreContext, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.mqtt.config import MqttConfig, SparkplugConfig
from ingest.stores.mqtt.node_store import NodeStore

CNC = Place("drachten", "shavers", "3", "cnc-07")
KEYS = (SignalKey(CNC, "load"), SignalKey(CNC, "program"), SignalKey(CNC, "count"))
STATE = "spBv1.0/STATE/scada"
INTEROP = Path(__file__).parents[2] / "interop"


def record(*rows: tuple[int, Any, int], waited: bool = False, kind: RecordKind = RecordKind.READINGS) -> Record:
    """(signal, value, status) each; committed now, or an hour ago."""
    builder = BatchBuilder()
    now = time.time_ns() - (3600 * 10**9 if waited else 0)
    for i, (signal, value, status) in enumerate(rows):
        builder.add(signal, now // 1_000_000 * 1_000_000 + i, value, status)
    return Record(1, kind, now + 60 * 10**9 * (not waited), builder.build())


class Host:
    """Hears everything of a group, and speaks as a host application; its session outlives a restart of the broker."""

    def __init__(self, broker: Any) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.qos: list[int] = []
        self.subscribed = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="host", clean_session=False)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe([("spBv1.0/plant/#", 1), ("fieldlab/#", 1)])
        self.client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        if "/NCMD/" not in message.topic:
            self.qos.append(message.qos)
            self.heard.append((message.topic, bytes(message.payload)))

    def kinds(self) -> list[str]:
        return [topic.split("/")[2] for topic, _ in list(self.heard) if topic.startswith("spBv1.0")]

    def metrics(self, kind: str) -> list[Metric]:
        heard = list(self.heard)
        return [each for topic, body in heard if topic.split("/")[2] == kind for each in decode(body).metrics]

    def say(self, topic: str, body: bytes, *, retain: bool = False) -> None:
        self.client.publish(topic, body, qos=1, retain=retain).wait_for_publish(10)

    def state(self, *, online: bool, at: int) -> None:
        self.say(STATE, msgspec.json.encode({"online": online, "timestamp": at}), retain=True)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def host(wait_until: Callable[..., Any]) -> Iterator[Callable[[Any], Host]]:
    with contextlib.ExitStack() as stack:

        def make(broker: Any) -> Host:
            made = Host(broker)
            stack.callback(made.close)
            wait_until(lambda: made.subscribed)
            return made

        yield make


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[..., NodeStore]]:
    with contextlib.ExitStack() as stack:

        def make(broker: Any, protocol: Any = "5", **keys: Any) -> NodeStore:
            config = MqttConfig(
                url=broker.url,
                username=broker.user,
                password_file=broker.password_file,
                protocol=protocol,
                format="sparkplug",
                sparkplug=SparkplugConfig(group="plant", **keys),
                timeout=Duration(5),
            )
            context = StoreContext(name="spark", agent="line-3", data=tmp_path)
            made, reader = load_kind("mqtt").create(config, context, SignalTable(KEYS))
            assert isinstance(made, NodeStore)
            assert reader is None
            stack.callback(made.close)
            return made

        yield make


def rebirth() -> bytes:
    metric = Metric("Node Control/Rebirth", None, None, t.BOOLEAN, False, False, False, Value(p.BOOLEAN, True), {})
    return encode(Payload(time.time_ns() // 1_000_000, None, (metric,), b""))


@pytest.mark.parametrize(("qos", "protocol"), [(0, "5"), (1, "5"), (0, "3.1.1")])
def test_a_life_from_birth_to_death(
    qos: int,
    protocol: str,
    mosquitto: Callable[..., Any],
    host: Callable[[Any], Host],
    node: Callable[..., NodeStore],
    wait_until: Any,
    sparkplug_payload: str,
) -> None:
    broker = mosquitto()
    heard, made = host(broker), node(broker, protocol, qos=qos)
    unit = Record(1, RecordKind.SIGNAL, 1, rows=(SignalInfo(key=KEYS[0], unit="%"),))
    assert made.write([unit, record((0, 1.5, 0), (1, "O1", 0), (2, -(2**60), 0), (0, None, 0x80310000))]) == []
    wait_until(lambda: heard.kinds() == ["NBIRTH", "DBIRTH", "DDATA"])
    heard.say("spBv1.0/plant/NCMD/line-3", b"\xff no payload")
    heard.say("spBv1.0/plant/NCMD/line-3", rebirth())
    wait_until(lambda: heard.kinds()[3:] == ["NBIRTH", "DBIRTH"], 20, "born again, with nothing to write")
    finding = Finding(time=7, place=CNC, signal="load", chart="c", rule="1", id="f1")
    assert made.write([record((0, 2.5, 0)), Record(3, RecordKind.FINDING, 7, rows=(finding,))]) == []
    made.close()
    wait_until(lambda: heard.kinds()[5:] == ["DDATA", "NDEATH"])
    assert [topic for topic, _ in heard.heard if topic.startswith("fieldlab")] == [f"fieldlab/{CNC.path}/_finding"]
    assert {q for q, (topic, _) in zip(heard.qos, heard.heard, strict=True) if "DATA" in topic} == {qos}
    assert [decode(body).seq for topic, body in heard.heard if topic.startswith("spBv1.0")] == [0, 1, 2, 0, 1, 2, None]
    sessions = [m.value.raw for m in heard.metrics("NBIRTH") if m.name == "bdSeq"]
    assert [*sessions, *[m.value.raw for m in heard.metrics("NDEATH")]] == [0, 0, 0]
    lines = b"".join(base64.b64encode(body) + b"\n" for topic, body in heard.heard if topic.startswith("spBv1.0"))
    done = subprocess.run(
        [sparkplug_payload, "sparkplug_decode.js"], cwd=INTEROP, input=lines, capture_output=True, check=True
    )
    npm = [json.loads(line) for line in done.stdout.splitlines()]
    assert npm[0]["metrics"][0]["name"] == "bdSeq"
    births = {m["name"]: (m["alias"], m["type"], m.get("properties", {})) for m in npm[1]["metrics"]}
    assert births["load"] == ({"$long": "0"}, "Double", {"engUnit": {"type": "String", "value": "%"}})
    assert [births[name][1] for name in ("program", "count")] == ["String", "Int64"]
    values = [m["value"] for m in npm[2]["metrics"]]
    assert values == [1.5, "O1", {"$long": str(2**64 - 2**60)}, None]
    bad = npm[2]["metrics"][3]["properties"]
    assert (bad["Quality"]["value"], bad["StatusCode"]["value"]) == (0, {"$long": str(0x80310000)})


def test_readings_wait_for_the_primary_host_and_come_as_history(
    mosquitto: Callable[..., Any], host: Callable[[Any], Host], node: Callable[..., NodeStore], wait_until: Any
) -> None:
    broker = mosquitto()
    heard, made = host(broker), node(broker, host="scada")
    waiting = record((0, 1.0, 0), (0, 1.5, 0), waited=True)
    heard.state(online=False, at=1000)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="'scada' is not online"):
            made.write([waiting])
    assert heard.kinds() == []
    heard.state(online=True, at=2000)
    wait_until(lambda: heard.kinds() == ["NBIRTH"], 20, "born without anything to write")
    assert made.write([waiting]) == []
    wait_until(lambda: [(m.value.raw, m.historical) for m in heard.metrics("DDATA")] == [(1.0, True), (1.5, True)])
    assert made.write([record((0, 2.0, 0))]) == []
    wait_until(
        lambda: [(m.value.raw, m.historical) for m in heard.metrics("DDATA")][2:] == [(1.5, False), (2.0, False)]
    )
    heard.state(online=False, at=1500)  # an old will
    assert made.write([record((0, 3.0, 0))]) == []
    heard.state(online=False, at=2500)
    wait_until(lambda: heard.kinds()[-1] == "NDEATH", 20, "it leaves with its host")
    with pytest.raises(StoreUnavailableError, match="scada"):
        made.write([record((0, 4.0, 0))])
    heard.state(online=True, at=3000)
    wait_until(lambda: made.write([record((0, 4.0, 0))]) == [])
    wait_until(lambda: [m.value.raw for m in heard.metrics("NBIRTH") if m.name == "bdSeq"] == [0, 1])


def test_a_dead_broker_is_found_again_and_what_waited_is_history(
    mosquitto: Callable[..., Any], host: Callable[[Any], Host], node: Callable[..., NodeStore], wait_until: Any
) -> None:
    broker = mosquitto()
    heard, made = host(broker), node(broker)
    assert made.write([record((0, 1.0, 0))]) == []
    broker.stop()
    while_away = record((0, 2.0, 0), waited=True)
    with pytest.raises(StoreUnavailableError, match=broker.url):
        made.write([while_away])
    broker.start()
    wait_until(lambda: heard.kinds()[-2:] == ["NBIRTH", "DBIRTH"], 30, "born again, with nothing to write")
    assert made.write([while_away, record((0, 5.0, 0), kind=RecordKind.BACKFILL)]) == []
    wait_until(lambda: [m.historical for m in heard.metrics("DDATA")][-2:] == [True, True])


def test_what_the_broker_refuses_is_a_letter_or_says_what_to_do(
    mosquitto: Callable[..., Any], host: Callable[[Any], Host], node: Callable[..., NodeStore], tmp_path: Path,
    wait_until: Any
) -> None:  # fmt: skip
    acl = tmp_path / "acl"
    births = "topic write spBv1.0/plant/+/line-3\ntopic write spBv1.0/plant/DBIRTH/#\n"
    acl.write_text(f"user fieldlab\ntopic read #\n{births}")
    acl.chmod(0o600)
    broker = mosquitto(config=[f"acl_file {acl}"])
    heard, made = host(broker), node(broker)
    letters = made.write([record((0, 1.0, 0), (2, 2**60, 0), (0, 2.0, 0))])
    assert sorted((x.signal, x.readings, x.reason, tuple(x.counts.items())) for x in letters) == [
        ("count", 1, "Not authorized", ((2, 1),)), ("load", 2, "Not authorized", ((0, 2),))
    ]  # fmt: skip
    load = next(letter for letter in letters if letter.signal == "load")
    (again,) = made.resend(load)
    assert (again.readings, again.counts) == (2, {0: 2})
    acl.write_text("user fieldlab\ntopic readwrite #\n")
    before = len(heard.kinds())
    broker.restart()
    wait_until(lambda: heard.kinds()[before:][-2:] == ["NBIRTH", "DBIRTH"], 30)
    assert made.resend(load) == []
    wait_until(lambda: [(m.value.raw, m.historical) for m in heard.metrics("DDATA")] == [(1.0, True), (2.0, True)])
    acl.write_text("user fieldlab\ntopic read #\n")
    broker.restart()

    def refused() -> bool:
        with pytest.raises((StoreUnavailableError, StoreMisconfiguredError)) as caught:
            made.write([record((0, 3.0, 0))])
        return "refuses the birth certificate" in str(caught.value) and "Not authorized" in str(caught.value)

    wait_until(refused)


def test_a_birth_that_the_broker_cannot_take_says_so(
    mosquitto: Callable[..., Any], node: Callable[..., NodeStore]
) -> None:
    made = node(mosquitto(config=["max_packet_size 1000"]))
    rows = [(i, "x" * 400, 0) for i in range(3)]
    with pytest.raises(StoreMisconfiguredError, match="it allows 1000 bytes; choose fewer `signals`"):
        made.write([record(*rows)])


def test_a_reading_over_which_the_broker_hangs_up_is_found(
    mosquitto: Callable[..., Any], host: Callable[[Any], Host], node: Callable[..., NodeStore], wait_until: Any
) -> None:
    broker = mosquitto(config=["message_size_limit 2000"])
    heard, made = host(broker), node(broker)
    assert made.write([record((0, 1.0, 0))]) == []
    records = [record((1, "x" * 3000, 0)), record((0, 2.0, 0))]
    found: list[DeadLetter] = []

    def done() -> bool:
        try:
            found.extend(made.write(records))
        except StoreUnavailableError:
            return False
        return True

    wait_until(done)
    (letter,) = found
    assert (letter.signal, letter.readings, letter.counts) == ("program", 1, {1: 1})
    assert "ended the connection over it 3 times" in letter.reason
    assert made.write([record((0, 3.0, 0))]) == []
    heard.say("spBv1.0/plant/NCMD/line-3", rebirth())
    births = len(heard.metrics("NBIRTH"))
    wait_until(lambda: len(heard.metrics("NBIRTH")) > births, 20, "its births do not have it")
    assert [m.value.raw for m in heard.metrics("DDATA")][-2:] == [2.0, 3.0]
