"""MQTT devices against real brokers: every line of truth is received, exactly, also through a restart of the broker."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from simulators.machines import MACHINES, Reading
from simulators.protocols.broker import Broker, BrokerError
from simulators.protocols.mqtt_device import MqttDevice, MqttError, payload

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:amqtt.*")
NS = 1_763_900_000_123_456_000
PLACE = "drachten/shavers/3/printer-02"


def printed(parts: int) -> list[Reading]:
    machine = MACHINES["printer"]("printer-02", seed=1, start=NS, sample_period=10**7, cycle=10**8, parts=parts)
    return machine.step(2**62).readings


class Listener:
    """A subscriber with a persistent session; QoS 1."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.subscribed = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "listener", clean_session=False)
        self.client.username_pw_set(user, password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda c, *_: c.subscribe("fieldlab/#", qos=1)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.topic, decode(m.payload)))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self.subscribed.wait(20), "not subscribed"

    def rows(self) -> set[tuple[str, int, Any, int]]:
        rows = set()
        for topic, m in self.messages:
            many = m if isinstance(m["value"], list) else {k: [v] for k, v in m.items()}
            for value, ts, status in zip(many["value"], many["ts"], many["status"], strict=True):
                plain = float(value) if isinstance(value, Decimal) else value
                rows.add((topic, int(ts * 10**9), plain, status))
        return rows

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def decode(raw: bytes | bytearray) -> Any:
    return json.loads(raw, parse_float=Decimal)  # exact: a float cannot hold epoch seconds with six decimals


def expected(readings: Sequence[Reading]) -> set[tuple[str, int, Any, int]]:
    return {(f"fieldlab/{PLACE}/{r.signal}", r.ts, r.value, r.status) for r in readings}


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(port: int, user: str, password: str) -> Listener:
        made.append(Listener(port, user, password))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("batch", [1, 7])
def test_what_it_says_was_sent_arrives_bit_for_bit(
    mosquitto: Callable[..., Any],
    listen: Callable[..., Listener],
    wait_until: Callable[..., Any],
    protocol: Literal["5", "3.1.1"],
    batch: int,
) -> None:
    broker = mosquitto(max_inflight_messages=1000)
    listener = listen(broker.port, broker.user, broker.password)
    sent: list[Reading] = []

    async def go() -> int:
        device = MqttDevice(
            broker.url,
            PLACE,
            sent.extend,
            user=broker.user,
            password=broker.password,
            protocol=protocol,
            batch=batch,
            in_flight=20,
        )
        await device.connect()
        await device.send(printed(20))
        left = await device.flush()
        await device.close()
        return left

    assert asyncio.run(go()) == 0
    assert sorted(sent) == sorted(printed(20))
    wait_until(lambda: expected(sent) <= listener.rows(), what="everything that was sent")
    assert listener.rows() == expected(sent)
    if batch > 1:
        assert len(listener.messages) < len(sent) / 3


def test_it_carries_on_when_the_broker_restarts(
    mosquitto: Callable[..., Any], listen: Callable[..., Listener], wait_until: Callable[..., Any]
) -> None:
    broker = mosquitto(max_inflight_messages=1000)
    listener = listen(broker.port, broker.user, broker.password)
    sent: list[Reading] = []
    readings = printed(60)

    async def go() -> int:
        device = MqttDevice(broker.url, PLACE, sent.extend, user=broker.user, password=broker.password, in_flight=10)
        await device.connect()
        sending = asyncio.create_task(device.send(readings))
        await asyncio.to_thread(wait_until, lambda: len(sent) >= 50)
        await asyncio.to_thread(broker.restart)
        async with asyncio.timeout(40):
            await sending
        left = await device.flush()
        await device.close()
        return left

    assert asyncio.run(go()) == 0
    assert sorted(sent) == sorted(readings), "each is told once, whatever was sent again"
    wait_until(lambda: expected(readings) <= listener.rows(), what="everything that was sent")
    assert listener.rows() == expected(readings)


def test_a_wrong_password_and_a_dead_broker_are_told(
    mosquitto: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    broker = mosquitto()

    async def go(url: str) -> None:
        await MqttDevice(url, PLACE, lambda _: None, user="fieldlab", password="wrong").connect()

    with pytest.raises(MqttError, match=f"{broker.url}: refuses {PLACE}: Not authorized"):
        asyncio.run(go(broker.url))
    with pytest.raises(MqttError, match="cannot be reached"):
        asyncio.run(go(f"mqtt://127.0.0.1:{free_port()}"))
    with pytest.raises(MqttError, match="not a broker's address"):
        asyncio.run(go("127.0.0.1:1883"))


def test_a_refused_message_is_not_said_to_be_sent(
    mosquitto: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("acl")
    acl = folder / "acl"
    acl.write_text("user fieldlab\ntopic write fieldlab/+/+/+/+/flow\n")
    broker = mosquitto(config=[f"acl_file {acl}"])
    sent: list[Reading] = []

    async def go() -> MqttDevice:
        device = MqttDevice(broker.url, PLACE, sent.extend, user=broker.user, password=broker.password)
        await device.connect()
        await device.send([Reading("flow", NS, 1.0), Reading("layer", NS, 2.0)])
        assert await device.flush() == 0
        await device.close()
        return device

    device = asyncio.run(go())
    assert sent == [Reading("flow", NS, 1.0)]
    assert device.refused == 1


def test_the_payload_is_that_of_the_contract() -> None:
    assert payload([Reading("flow", NS, 12.5)], batch=False) == b'{"value":12.5,"ts":1763900000.123456,"status":0}'
    assert payload([Reading("s", NS, "T01"), Reading("s", NS + 1000, 1.0, 0x80000000)], batch=True) == (
        b'{"value":["T01",null],"ts":[1763900000.123456,1763900000.123457],"status":[0,2147483648]}'
    )


def kinds(require: Callable[[str, str], str], kind: str) -> None:
    if kind == "mosquitto":
        require("mosquitto", "mosquitto")


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_our_own_broker_delivers_also_what_came_while_the_subscriber_slept(
    kind: Literal["mosquitto", "amqtt"],
    require: Callable[[str, str], str],
    listen: Callable[..., Listener],
    wait_until: Callable[..., Any],
) -> None:
    kinds(require, kind)
    sent: list[Reading] = []
    readings = printed(10)

    async def go(broker: Broker) -> int:
        device = MqttDevice(
            broker.url, PLACE, sent.extend, user=broker.user, password=broker.password, protocol=broker.protocol
        )
        await device.connect()
        await device.send(readings)
        left = await device.flush()
        await device.close()
        return left

    with Broker(kind=kind) as broker:
        assert broker.kind == kind
        assert broker.password_file.stat().st_mode & 0o777 == 0o600
        assert broker.password_file.read_text().strip() == broker.password
        listen(broker.port, broker.user, broker.password).close()
        assert asyncio.run(go(broker)) == 0
        again = listen(broker.port, broker.user, broker.password)
        wait_until(lambda: expected(readings) <= again.rows(), what="everything that was sent")
        assert again.rows() == expected(sent) == expected(readings)
        again.close()
    assert not broker.password_file.exists()


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
@pytest.mark.parametrize(("user", "password"), [("", ""), ("fieldlab", "wrong"), ("someone", "else")])
def test_our_own_broker_lets_nobody_else_in(
    kind: Literal["mosquitto", "amqtt"], user: str, password: str, require: Callable[[str, str], str]
) -> None:
    kinds(require, kind)
    with Broker(kind=kind) as broker:

        async def go() -> None:
            await MqttDevice(
                broker.url, PLACE, lambda _: None, user=user, password=password, protocol="3.1.1"
            ).connect()

        with pytest.raises(MqttError, match="refuses"):
            asyncio.run(go())


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_a_port_that_is_taken_is_told(kind: Literal["mosquitto", "amqtt"], require: Callable[[str, str], str]) -> None:
    kinds(require, kind)
    with Broker(kind=kind) as first, pytest.raises(BrokerError, match=f"cannot listen on port {first.port}"):
        Broker(kind=kind, port=first.port).__enter__()
