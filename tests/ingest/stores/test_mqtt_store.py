"""The MQTT store against a real broker."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from fieldlab.config import Duration, Size
from fieldlab.errors import ConfigError
from fieldlab.model import Finding, MachineState, PartEvent, Place, Record, RecordKind, SignalTable, Verdict
from ingest.stores import load_kind
from ingest.stores.base import Store, StoreContext, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.mqtt.config import MqttConfig

CNC = Place("drachten", "shavers", "3", "cnc-07")


def finding(n: int) -> Finding:
    return Finding(time=n, place=CNC, signal="d", chart="c", rule="1", id=f"f{n}", detail="x" * 200)


def findings(numbers: range) -> list[Record]:
    return [Record(n + 1, RecordKind.FINDING, n, rows=(finding(n),)) for n in numbers]


class Listener:
    """Subscribes with a persistent session, and keeps what comes."""

    def __init__(self, broker: Any) -> None:
        self.messages: list[tuple[str, int, Any]] = []
        self.ready = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="listener", clean_session=False)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("fieldlab/#", qos=1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.topic, m.qos, json.loads(m.payload)))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self.ready.wait(20)

    def ids(self) -> set[str]:
        return {row["id"] for _, _, row in self.messages}

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(mosquitto: Callable[..., Any]) -> Any:
    return mosquitto()


@pytest.fixture
def listener(broker: Any) -> Iterator[Listener]:
    made = Listener(broker)
    yield made
    made.close()


@pytest.fixture
def make_store(broker: Any, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(**keys: Any) -> Store:
        config = MqttConfig(
            **{"url": broker.url, "username": broker.user, "password_file": broker.password_file, **keys}
        )
        store, reader = load_kind("mqtt").create(
            config, StoreContext(name="uns", agent="line-3", data=tmp_path), SignalTable()
        )
        assert reader is None
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_rows_are_told_to_the_letter(
    protocol: str, make_store: Callable[..., Store], listener: Listener, wait_until: Callable[..., Any]
) -> None:
    store = make_store(protocol=protocol)
    assert store.kinds == {RecordKind.FINDING, RecordKind.PART}
    parts = (
        Verdict(time=2, place=CNC, id="p", verdict="fail", reasons=("a", "b"), features={"d.mean": 1.0}),
        PartEvent(time=3, place=CNC, event="start", id="p"),
    )
    state = Record(3, RecordKind.MACHINE_STATE, 1, rows=(MachineState(time=1, place=CNC, state="idle"),))
    assert store.write([*findings(range(1)), Record(2, RecordKind.PART, 2, rows=parts), state]) == []
    wait_until(lambda: len(listener.messages) == 3)
    (first, verdict, event) = listener.messages
    place = "fieldlab/drachten/shavers/3/cnc-07/"
    assert [(t, q) for t, q, _ in listener.messages] == [
        (place + "_finding", 1),
        (place + "_part", 1),
        (place + "_part", 1),
    ]
    assert first[2]["type"] == "finding"
    assert (first[2]["state"], first[2]["revision"], first[2]["place"]) == ("raised", 1, CNC.path)
    assert verdict[2]["type"] == "verdict"
    assert (verdict[2]["verdict"], verdict[2]["reasons"], verdict[2]["features"]) == ("fail", ["a", "b"], {"d.mean": 1})
    assert (event[2]["type"], event[2]["event"], event[2]["value"]) == ("event", "start", None)


def test_a_restart_of_the_broker_in_the_middle_loses_nothing(
    broker: Any, make_store: Callable[..., Store], listener: Listener, wait_until: Callable[..., Any]
) -> None:
    store = make_store(timeout=Duration(2))
    told = threading.Event()
    errors = []

    def forward() -> None:  # what the forwarder does: the same records again after an error
        for start in range(0, 6000, 500):
            while True:
                try:
                    store.write(findings(range(start, start + 500)))
                    break
                except StoreUnavailableError as e:
                    errors.append(e)
            told.set()

    thread = threading.Thread(target=forward)
    thread.start()
    assert told.wait(20)
    broker.restart()
    thread.join(60)
    assert not thread.is_alive()
    wait_until(lambda: len(listener.ids()) == 6000, 30)


def test_a_dead_broker_raises_within_the_timeout_and_returns_when_it_is_back(
    broker: Any, make_store: Callable[..., Store], listener: Listener, wait_until: Callable[..., Any]
) -> None:
    store = make_store(timeout=Duration(1))
    store.write(findings(range(1)))
    broker.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=broker.url):
            store.write(findings(range(1, 3)))
    listener.ready.clear()
    broker.start()
    assert listener.ready.wait(20)  # the killed broker forgot its subscription
    wait_until(lambda: store.write(findings(range(1, 3))) == [])
    wait_until(lambda: listener.ids() >= {"f1", "f2"})


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_wrong_password_names_the_file_to_look_at(
    protocol: str, make_store: Callable[..., Store], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    wrong.chmod(0o600)
    store = make_store(password_file=wrong, protocol=protocol)
    with pytest.raises(StoreMisconfiguredError, match="password_file"):
        store.write(findings(range(1)))


def test_what_may_not_be_written_goes_to_the_dead_letter(mosquitto: Callable[..., Any], tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("user fieldlab\ntopic read #\n")
    acl.chmod(0o600)
    broker = mosquitto(config=[f"acl_file {acl}"])
    config = MqttConfig(url=broker.url, username=broker.user, password_file=broker.password_file)
    context = StoreContext(name="uns", agent="line-3", data=tmp_path)
    store, _ = load_kind("mqtt").create(config, context, SignalTable())
    (letter,) = store.write(findings(range(2)))
    assert (letter.machine, letter.signal, letter.readings, letter.counts) == (CNC.path, "_finding", 2, {})
    assert (letter.reason, letter.first, letter.last) == ("Not authorized", 0, 1)
    acl.write_text("user fieldlab\ntopic readwrite #\n")
    broker.restart()
    assert store.resend(letter) == []  # type: ignore[attr-defined]  # every store with dead letters has it
    store.close()


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"url": "http://x"}, "url"),
        ({"url": "mqtt://u:p@x"}, "url"),
        ({"url": "mqtt://x:99999"}, "url"),
        ({"url": "mqtt://x", "prefix": "a/#"}, "prefix"),
        ({"url": "mqtt://x", "prefix": "a//b"}, "prefix"),
        ({"url": "mqtt://x", "signals": ("",)}, "signals"),
        ({"url": "mqtt://x", "in_flight": 0}, "in_flight"),
        ({"url": "mqtt://x", "max_packet": Size(10)}, "max_packet"),
        ({"url": "mqtt://x", "password_file": Path("p")}, "username"),
        ({"url": "mqtts://x", "cert_file": Path("p")}, "cert_file"),
        ({"url": "mqtts://x", "ca_file": Path("/nowhere")}, "ca_file"),
        ({"url": "mqtts://x", "timeout": Duration(0)}, "timeout"),
    ],
)
def test_a_table_that_makes_no_sense_names_its_key(keys: dict[str, Any], key: str, tmp_path: Path) -> None:
    context = StoreContext(name="uns", agent="line-3", data=tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_kind("mqtt").create(MqttConfig(**keys), context, SignalTable())
    assert caught.value.key == key
