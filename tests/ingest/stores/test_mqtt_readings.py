"""Readings on the native topics of a real broker, and the messages that they become."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from fieldlab.config import Duration, Size
from fieldlab.model import Batch, BatchBuilder, Place, Record, RecordKind, SignalKey, SignalTable
from ingest.stores import load_kind
from ingest.stores.base import StoreContext, StoreUnavailableError
from ingest.stores.mqtt import native
from ingest.stores.mqtt.config import MqttConfig
from ingest.stores.mqtt.store import MqttStore

CNC = Place("drachten", "shavers", "3", "cnc-07")
NOW = 1_763_900_000_123_000_000
NAMES = ("load", "program", "count", "température")


@pytest.fixture
def signals() -> SignalTable:
    return SignalTable([SignalKey(CNC, name) for name in NAMES])


def batch(*rows: tuple[int, int, Any, int]) -> Batch:
    """(signal, time, value, status) each."""
    builder = BatchBuilder()
    for row in rows:
        builder.add(*row)
    return builder.build()


def record(made: Batch, position: int = 1, kind: RecordKind = RecordKind.READINGS) -> Record:
    return Record(position, kind, NOW, made)


def plain(told: list[native.Told]) -> list[tuple[str, Any]]:
    return [(each.topic.rpartition("/")[2], json.loads(each.payload)) for each in told]


def test_the_contract_to_the_letter(signals: SignalTable) -> None:
    made = batch((0, NOW, 12.3, 0), (1, NOW, "O1234", 0), (3, NOW, None, 0x80310000), (2, NOW, 2**60 + 1, 0))
    told = list(native.told(made, signals, "fieldlab", 10_000))
    assert [(each.topic, each.payload) for each in told] == [
        ("fieldlab/drachten/shavers/3/cnc-07/load", b'{"value": 12.3, "ts": 1763900000.123, "status": 0}'),
        ("fieldlab/drachten/shavers/3/cnc-07/program", b'{"value": "O1234", "ts": 1763900000.123, "status": 0}'),
        (
            "fieldlab/drachten/shavers/3/cnc-07/count",
            b'{"value": 1152921504606846977, "ts": 1763900000.123, "status": 0}',
        ),
        (
            "fieldlab/drachten/shavers/3/cnc-07/température",
            b'{"ts": 1763900000.123, "status": 2150694912}',
        ),
    ]
    several = batch((0, NOW, 1.5, 0), (0, NOW + 1, -2.0, 0), (0, NOW + 1_000_000_000, 2**53 + 1, 0))
    (one,) = native.told(several, signals, "acme/uns", 10_000)
    assert one.topic == "acme/uns/drachten/shavers/3/cnc-07/load"
    assert one.payload == (
        b'{"value": [1.5,-2.0,9007199254740993], "ts": [1763900000.123,1763900000.123000001,1763900001.123]}'
    )


def test_what_is_not_good_stands_alone_in_its_place(signals: SignalTable) -> None:
    made = batch(
        (0, NOW, 1.0, 0), (0, NOW + 1, 2.0, 0), (0, NOW + 2, 3.0, 0x40000000), (0, NOW + 3, float("inf"), 0),
        (0, NOW + 4, 4.0, 0), (0, NOW + 5, "late", 0), (0, NOW + 6, "odd", 0x40000000),
    )  # fmt: skip
    bodies = [body for _, body in plain(list(native.told(made, signals, "f", 10_000)))]
    assert [(b.get("value"), b.get("status")) for b in bodies] == [
        ([1.0, 2.0], None), (3.0, 0x40000000), (None, 0x803C0000), ([4.0, "late"], None), ("odd", 0x40000000)
    ]  # fmt: skip


VALUES = st.one_of(
    st.floats(), st.text(max_size=300), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.none()
)  # fmt: skip
ROWS = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(-(2**60), 2**62), VALUES, st.sampled_from([0, 0, 0, 0x40000000, 0x80310000])
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, packet=st.sampled_from([300, 4096, 256_000]))
def test_nothing_is_lost_moved_or_changed(rows: list[tuple[int, int, Any, int]], packet: int) -> None:
    signals = SignalTable([SignalKey(CNC, name) for name in NAMES])
    made = batch(*rows)
    told = list(native.told(made, signals, "fieldlab", packet))
    assert all(len(t.topic.encode()) + len(t.payload) <= packet for t in told if t.readings > 1)
    texts = {**made.texts(), **dict(zip(made.integer_row.tolist(), made.integer.tolist(), strict=True))}
    for signal, name in enumerate(NAMES):
        expected = []
        for i in np.flatnonzero(made.signal == signal).tolist():
            bad = bool(made.status[i] & 0x80000000)
            expected.append((made.time[i], None if bad else texts.get(i, made.value[i]), made.status[i]))
        heard: list[tuple[Any, ...]] = []
        for each in told:
            if each.topic.endswith(f"/{name}"):
                body = json.loads(each.payload, parse_float=Decimal)
                many = isinstance(body["ts"], list)
                times = body["ts"] if many else [body["ts"]]
                values = body["value"] if many else [body.get("value")]
                heard += [
                    (int(at * 10**9), float(v) if isinstance(v, Decimal) else v, body.get("status", 0))
                    for at, v in zip(times, values, strict=True)
                ]
                assert each.readings == len(times)
        assert heard == expected


class Ear:
    """Subscribes with a persistent session to everything, and keeps what comes."""

    def __init__(self, broker: Any, topic: str = "fieldlab/#") -> None:
        self.messages: list[tuple[str, Any]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="ear", clean_session=False)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.reconnect_delay_set(1, 1)
        self.subscribed = False
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.client.on_message = lambda _c, _u, m: self.messages.append((m.topic, json.loads(m.payload)))
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def ear(wait_until: Callable[..., Any]) -> Iterator[Callable[..., Ear]]:
    made: list[Ear] = []

    def listen(broker: Any, topic: str = "fieldlab/#") -> Ear:
        made.append(Ear(broker, topic))
        wait_until(lambda: made[-1].subscribed)
        return made[-1]

    yield listen
    for each in made:
        each.close()


@pytest.fixture
def store(signals: SignalTable, tmp_path: Path) -> Iterator[Callable[..., MqttStore]]:
    made: list[MqttStore] = []

    def make(broker: Any, **keys: Any) -> MqttStore:
        keys = {"url": broker.url, "username": broker.user, "password_file": broker.password_file, **keys}
        context = StoreContext(name="uns", agent="line-3", data=tmp_path)
        found, _ = load_kind("mqtt").create(MqttConfig(**{"readings": True, **keys}), context, signals)
        assert isinstance(found, MqttStore)
        made.append(found)
        return found

    yield make
    for each in made:
        each.close()


def test_chosen_signals_come_in_order_and_the_others_do_not(
    mosquitto: Callable[..., Any], ear: Callable[..., Ear], store: Callable[..., MqttStore], wait_until: Any
) -> None:
    broker = mosquitto()
    heard = ear(broker, "acme/uns/#")
    made = store(broker, prefix="acme/uns", signals=("cnc-07/l*", "*/count"))
    assert not made._chosen.takes(SignalKey(CNC, "_load"))
    assert made.kinds == {RecordKind.READINGS, RecordKind.BACKFILL, RecordKind.FINDING, RecordKind.PART}
    assert made.takes().tolist() == [True, False, True, False]
    rows = [(i % 4, NOW + i, float(i), 0) for i in range(8_000)]
    past = record(batch((0, NOW - 5, 5.0, 0)), 3, RecordKind.BACKFILL)
    assert made.write([record(batch(*rows[:4000])), record(batch(*rows[4000:]), 2), past]) == []
    values: dict[str, list[float]] = {}
    wait_until(lambda: sum(np.size(body["value"]) for _, body in heard.messages) == 4_001)
    for topic, body in heard.messages:
        values.setdefault(topic.rpartition("/")[2], []).extend(np.atleast_1d(body["value"]).tolist())
    assert values == {"load": [*map(float, range(0, 8000, 4)), 5.0], "count": list(map(float, range(2, 8000, 4)))}
    assert len(heard.messages) < 10, "readings of one signal share messages"


def test_refusals_of_some_topics_are_letters_and_stop_nothing(
    mosquitto: Callable[..., Any], ear: Callable[..., Ear], store: Callable[..., MqttStore], tmp_path: Path,
    wait_until: Any
) -> None:  # fmt: skip
    acl = tmp_path / "acl"
    acl.write_text("user fieldlab\ntopic read #\ntopic write fieldlab/+/+/+/+/load\n")
    acl.chmod(0o600)
    broker = mosquitto(config=[f"acl_file {acl}"])
    heard = ear(broker)
    made = store(broker)
    letters = made.write(
        [record(batch((0, NOW, 1.0, 0), (2, NOW, 2.0, 0), (2, NOW + 1, 3.0, 0), (0, NOW + 1, 4.0, 0)))]
    )
    (letter,) = letters
    assert (letter.signal, letter.readings, letter.counts, letter.reason) == ("count", 2, {2: 2}, "Not authorized")
    assert (letter.first, letter.last) == (NOW, NOW + 1)
    wait_until(lambda: heard.messages)
    (again,) = made.resend(letter)
    assert (again.readings, again.counts, again.body) == (2, {2: 2}, letter.body)
    acl.write_text("user fieldlab\ntopic readwrite #\n")
    broker.restart()
    wait_until(heard.client.is_connected)
    assert made.resend(letter) == []
    wait_until(lambda: [body["value"] for _, body in heard.messages] == [[1.0, 4.0], [2.0, 3.0]])


def test_what_is_too_large_for_the_broker_is_a_letter_and_the_rest_goes_out(
    mosquitto: Callable[..., Any], ear: Callable[..., Ear], store: Callable[..., MqttStore], wait_until: Any
) -> None:
    broker = mosquitto(config=["max_packet_size 6000"])
    heard = ear(broker)
    made = store(broker)
    rows = [(1, NOW, "x" * 9_000, 0), (1, NOW + 1, "short", 0), *((0, NOW + i, 1 / 3, 0) for i in range(1000))]
    (letter,) = made.write([record(batch(*rows))])
    assert (letter.signal, letter.readings, letter.counts) == ("program", 1, {1: 1})
    assert "too large" in letter.reason
    assert "6000" in letter.reason
    wait_until(lambda: sum(np.size(body["value"]) for _, body in heard.messages) == 1001)


def test_a_message_over_which_the_broker_hangs_up_is_found(
    mosquitto: Callable[..., Any], ear: Callable[..., Ear], store: Callable[..., MqttStore], wait_until: Any
) -> None:
    """mosquitto says nothing of its `message_size_limit` before, and ends the connection over what is larger."""
    broker = mosquitto(config=["message_size_limit 2000"])
    heard = ear(broker)
    made = store(broker)
    records = [record(batch((0, NOW, 1.0, 0), (1, NOW, "x" * 3_000, 0), (2, NOW, 2.0, 0)))]
    for _ in range(4):
        with pytest.raises(StoreUnavailableError):
            made.write(records)
    (letter,) = made.write(records)
    assert (letter.signal, letter.readings) == ("program", 1)
    assert "ended the connection over it 3 times" in letter.reason
    wait_until(lambda: any(topic.endswith("/count") for topic, _ in heard.messages))


class Silent:
    """A broker of MQTT 5 that takes 7 messages at a time (Receive Maximum), and acknowledges none."""

    user, password_file = "", None

    def __init__(self, port: int) -> None:
        self.url = f"mqtt://127.0.0.1:{port}"
        self.published = 0
        self._listening = socket.create_server(("127.0.0.1", port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        taken, _ = self._listening.accept()
        with taken, taken.makefile("rb") as stream:
            while head := stream.read(1):
                length = shift = 0
                while True:
                    (byte,) = stream.read(1)
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                stream.read(length)
                self.published += head[0] >> 4 == 3
                if head[0] >> 4 == 1:
                    taken.sendall(bytes((0x20, 6, 0, 0, 3, 0x21, 0, 7)))  # CONNACK

    def close(self) -> None:
        self._thread.join(20)
        self._listening.close()


@pytest.mark.parametrize(("readings", "sent"), [(3, 3), (100, 7)])
def test_nothing_counts_as_told_before_it_is_acknowledged_and_little_is_in_flight(
    readings: int, sent: int, free_port: Callable[[], int], store: Callable[..., MqttStore]
) -> None:
    broker = Silent(free_port())
    try:
        made = store(broker, timeout=Duration(0.5))
        rows = [(i % 4, NOW + i, float(i), 0x40000000) for i in range(readings)]
        with pytest.raises(StoreUnavailableError, match=f"has not answered {sent} messages"):
            made.write([record(batch(*rows))])
        assert broker.published == sent
    finally:
        broker.close()


def test_many_messages_go_out_at_once(
    mosquitto: Callable[..., Any], ear: Callable[..., Ear], tmp_path: Path, wait_until: Any
) -> None:
    table = SignalTable([SignalKey(CNC, f"s{i:04}") for i in range(3000)])
    broker = mosquitto(max_inflight_messages=0)
    heard = ear(broker)
    config = MqttConfig(
        url=broker.url, username=broker.user, password_file=broker.password_file, readings=True, in_flight=50,
        max_packet=Size(5000),
    )  # fmt: skip
    made, _ = load_kind("mqtt").create(config, StoreContext(name="uns", agent="a", data=tmp_path), table)
    try:
        started = time.monotonic()
        assert made.write([record(batch(*((i, NOW, float(i), 0) for i in range(3000))))]) == []
        assert time.monotonic() - started < 20
        wait_until(lambda: len(heard.messages) == 3000)
    finally:
        made.close()
