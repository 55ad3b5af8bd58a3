"""A real mosquitto with the shipped files and the script's secrets: who may connect, and do what."""

import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from deploy import secrets

DEPLOY = Path(__file__).parents[2] / "deploy"
CNC, ROBOT = "drachten/shavers/3/cnc-07", "drachten/shavers/3/robot-03"
DENIED = "Not authorized"


class Hall(NamedTuple):
    """The broker, and what a client needs to reach it."""

    broker: Any
    secrets: Path
    wait_until: Callable[..., Any]

    def password(self, user: str) -> str:
        files = {"agent": "agent/mqtt-password", "simulators": "simulators/mqtt-password"}
        return (self.secrets / files.get(user, f"machines/{user.replace('/', '__')}")).read_text().strip()


class Talker:
    """A client of the broker that keeps what it is told."""

    def __init__(self, hall: Hall, user: str, password: str, *, tls: bool, lasting: bool) -> None:
        self._wait = hall.wait_until
        self.answer, self.published, self.subscribed, self.lost = "", dict[int, str](), dict[int, list[str]](), False
        self.heard: list[tuple[str, bytes]] = []
        self.client = Client(CallbackAPIVersion.VERSION2, f"{user}-client", protocol=MQTTProtocolVersion.MQTTv5)
        if user:
            self.client.username_pw_set(user, password)
        if tls:
            self.client.tls_set_context(ssl.create_default_context(cafile=str(hall.secrets / "machines/ca.crt")))
        self.client.on_connect = lambda *a: setattr(self, "answer", str(a[3]))
        self.client.on_connect_fail = lambda *a: setattr(self, "answer", "no connection")
        self.client.on_disconnect = lambda *a: setattr(self, "lost", True)
        self.client.on_publish = lambda c, d, mid, code, p: self.published.update({mid: str(code)})
        self.client.on_subscribe = lambda c, d, mid, codes, p: self.subscribed.update({mid: [str(x) for x in codes]})
        self.client.on_message = lambda c, d, m: self.heard.append((m.topic, bytes(m.payload)))
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own
        session.SessionExpiryInterval = 3600 if lasting else 0
        self.client.connect_async("localhost", hall.broker.port, clean_start=not lasting, properties=session)
        self.client.loop_start()
        hall.wait_until(lambda: self.answer or self.lost, what="the broker answers")

    def publish(self, topic: str, payload: bytes = b"1") -> str:
        mid = self.client.publish(topic, payload, qos=1).mid
        return str(self._wait(lambda: self.published.get(mid), what=f"an answer to {topic}"))

    def subscribe(self, topic: str) -> str:
        _, mid = self.client.subscribe(topic, qos=1)
        assert mid is not None
        codes: list[str] = self._wait(lambda: self.subscribed.get(mid), what=f"an answer to {topic}")
        return codes[0]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def hall(mosquitto: Callable[..., Any], wait_until: Callable[..., Any], tmp_path: Path) -> Hall:
    secrets.make(tmp_path, ["localhost"], [CNC, ROBOT], own=False)
    broker = mosquitto(start=False)
    text = (DEPLOY / "mosquitto/mosquitto.conf").read_text("utf-8")
    for shipped, here in {
        "listener 8883": f"listener {broker.port} 127.0.0.1\nuser root",
        "/run/secrets": str(tmp_path / "mosquitto"),
        "/mosquitto/config/acl": str(DEPLOY / "mosquitto/acl"),
        "/mosquitto/data": str(broker.folder),
    }.items():
        assert shipped in text
        text = text.replace(shipped, here)
    (broker.folder / "mosquitto.conf").write_text(text, "utf-8")
    return Hall(broker.start(), tmp_path, wait_until)


@pytest.fixture
def talk(hall: Hall) -> Iterator[Callable[..., Talker]]:
    open_: list[Talker] = []

    def connect(user: str, password: str | None = None, *, tls: bool = True, lasting: bool = False) -> Talker:
        word = hall.password(user) if password is None else password
        open_.append(Talker(hall, user, word, tls=tls, lasting=lasting))
        return open_[-1]

    yield connect
    for talker in open_:
        talker.close()


def test_a_machine_publishes_as_itself_and_nobody_else(hall: Hall, talk: Callable[..., Talker]) -> None:
    agent, cnc = talk("agent"), talk(CNC)
    assert agent.subscribe("fieldlab/+/+/+/+/+") == "Granted QoS 1"
    assert DENIED not in cnc.publish(f"fieldlab/{CNC}/diameter", b"25.0")
    hall.wait_until(lambda: agent.heard, what="the reading arrives")
    assert cnc.publish(f"fieldlab/{ROBOT}/diameter") == DENIED
    assert cnc.publish(f"fieldlab/{CNC}/deep/signal") == DENIED
    assert cnc.publish(f"fieldlab/{CNC}/_finding") == DENIED
    assert cnc.publish(f"fieldlab/{CNC}/_part") == DENIED
    assert cnc.publish("spBv1.0/group/NBIRTH/node") == DENIED
    assert agent.heard == [(f"fieldlab/{CNC}/diameter", b"25.0")]


def test_a_machine_hears_nothing(hall: Hall, talk: Callable[..., Talker]) -> None:
    agent, cnc, robot = talk("agent"), talk(CNC), talk(ROBOT)
    cnc.subscribe("fieldlab/#")
    agent.subscribe("fieldlab/#")
    robot.publish(f"fieldlab/{ROBOT}/state")
    agent.publish(f"fieldlab/{CNC}/_finding")
    hall.wait_until(lambda: len(agent.heard) == 2, what="the agent hears both")
    cnc.publish(f"fieldlab/{CNC}/state")  # answered after what it might have been sent
    assert cnc.heard == []


def test_the_agent_tells_findings_and_parts_and_writes_no_reading(talk: Callable[..., Talker]) -> None:
    agent = talk("agent")
    for topic in (f"fieldlab/{CNC}/_finding", f"fieldlab/{CNC}/_part", "fieldlab/_agent/hall"):
        assert agent.publish(topic) != DENIED
    for topic in (f"fieldlab/{CNC}/diameter", "device/01S00/request", "uagv/v2/kit/0001/order"):
        assert agent.publish(topic) == DENIED


@pytest.mark.parametrize(("user", "password"), [("", ""), (CNC, "wrong"), ("admin", "admin"), ("drachten", "x")])
def test_nobody_else_connects(talk: Callable[..., Talker], user: str, password: str) -> None:
    assert talk(user, password).answer == DENIED


def test_nothing_is_said_without_tls(talk: Callable[..., Talker]) -> None:
    talker = talk(CNC, tls=False)
    assert (talker.answer, talker.lost) in {("", True), ("no connection", False)}


def test_what_waits_for_an_agent_survives_a_restart(hall: Hall, talk: Callable[..., Talker]) -> None:
    """More than mosquitto's own default of 1,000 messages."""
    agent = talk("agent", lasting=True)
    assert agent.subscribe("fieldlab/+/+/+/+/+") == "Granted QoS 1"
    agent.close()
    cnc = talk(CNC)
    for i in range(1500):
        cnc.client.publish(f"fieldlab/{CNC}/diameter", str(i).encode(), qos=1)
    hall.wait_until(lambda: len(cnc.published) == 1500, what="the broker has them all")
    cnc.close()
    hall.broker.restart()
    agent = talk("agent", lasting=True)
    hall.wait_until(lambda: len(agent.heard) == 1500, what="all that waited arrives")
    assert [int(payload) for _, payload in agent.heard] == list(range(1500))


def test_simulated_machines_publish_through_it(hall: Hall, talk: Callable[..., Talker], tmp_path: Path) -> None:
    """With the options that the compose file gives them."""
    agent = talk("agent")
    assert agent.subscribe("fieldlab/+/+/+/+/+") == "Granted QoS 1"
    simulators = hall.secrets / "simulators"
    url = f"mqtts://localhost:{hall.broker.port}"
    given = f"--mqtt {url} --mqtt-user simulators --mqtt-password-file {simulators}/mqtt-password"
    given += f" --mqtt-ca-file {simulators}/ca.crt --opcua-host 127.0.0.1 --duration 3600"
    command = [sys.executable, "-m", "fieldlab.cli", "simulate", "hall", *given.split()]
    with (tmp_path / "log").open("wb") as log:
        machines = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
    try:
        hall.wait_until(lambda: machines.poll() is not None or agent.heard, 60.0, "a printer's reading arrives")
        assert machines.poll() is None, (tmp_path / "log").read_text()
        assert agent.heard[0][0].startswith("fieldlab/drachten/shavers/3/printer-02/")
    finally:
        machines.kill()
        machines.communicate()
