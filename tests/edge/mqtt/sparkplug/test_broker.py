"""The host at a real mosquitto, with an edge node that answers it: STATE, rebirths, deaths, losses, history."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.sources.base import SourceContext
from edge.sources.mqtt.check import check
from edge.sources.mqtt.sparkplug.config import SparkplugConfig

GONE = 0x80310000
STATE = "spBv1.0/STATE/line-3"


class LiveNode:
    """An edge node at a broker: a will, births when it is asked, births when its primary host comes."""

    def __init__(self, broker: Any, edge_node: Any, *, qos: int = 1) -> None:
        self.edge, self.qos = edge_node, qos
        self.asked = 0
        self.states: list[dict[str, Any]] = []
        self.value = 0.0
        self._lock = threading.RLock()
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self.client.username_pw_set(broker.user, broker.password)
        topic, will = edge_node.ndeath()
        self.client.will_set(topic, will, qos=1)
        self.client.on_message = self._on_message
        self.ready = threading.Event()
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        self.client.subscribe([(edge_node.topic("NCMD"), 1), (STATE, 1)])
        assert self.ready.wait(10)

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        if message.topic == STATE:
            self.states.append(json.loads(message.payload))
        else:
            self.asked += 1
            self.births()

    def publish(self, *messages: tuple[str, bytes]) -> None:
        for topic, payload in messages:
            self.client.publish(topic, payload, qos=self.qos)

    def births(self) -> None:
        with self._lock:
            n = self.edge
            self.publish(n.nbirth(n.metric("load", self.value, alias=1)))
            self.publish(n.send("DBIRTH", n.metric("count", 0, "Int32", alias=2), device="cnc"))

    def data(self, value: float, *, lose: bool = False) -> None:
        with self._lock:
            self.value = value
            message = self.edge.send("NDATA", self.edge.metric(None, value, alias=1))
            if not lose:
                self.publish(message)

    def die(self) -> None:
        """As if its power failed: the broker publishes its will."""
        self.client.loop_stop()
        sock: Any = self.client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def live(edge_node: Any) -> Iterator[Callable[..., LiveNode]]:
    made: list[LiveNode] = []

    def start(broker: Any, *, qos: int = 1) -> LiveNode:
        made.append(LiveNode(broker, edge_node("plant", "line-3"), qos=qos))
        return made[-1]

    yield start
    for each in made:
        each.close()


def host(run: Any, broker: Any, sink: Any, **keys: Any) -> Any:
    return run(broker, sink, format="sparkplug", sparkplug=SparkplugConfig(**keys))


def loads(sink: Any, first: int = 0) -> list[Any]:
    return [value for name, _, value, status in sink.readings(first) if name == "line-3/load" and not status]


@pytest.mark.parametrize("qos", [0, 1])
def test_an_edge_node_is_born_speaks_loses_a_message_and_dies(
    mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any, qos: int
) -> None:
    broker = mosquitto()
    running = host(run, broker, sink, reorder=0.2)
    n = live(broker, qos=qos)
    wait_until(lambda: n.states and n.states[-1]["online"], what="STATE is retained: the edge node sees its host")
    n.births()
    for i in range(1, 6):
        n.data(float(i))
    wait_until(lambda: loads(sink) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert sink.guarantees["line-3/load"] == ("end-to-end" if qos else "from-receipt")

    n.data(6.0, lose=True)
    n.data(7.0)
    wait_until(lambda: running.counter("births") == 4, what="a gap asks for a birth, and the edge node answers")
    wait_until(lambda: sorted(loads(sink)) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 7.0], what="nothing waits any more")
    assert (n.asked, running.counter("gaps"), running.counter("missed")) == (1, 1, 1)
    gaps = {each.key.short: each for each in sink.known_gaps.values()}
    assert set(gaps) == {"line-3/load", "cnc/count"}
    assert {(each.cause, each.state) for each in gaps.values()} == {("notification_lost", "ended")}
    times = {value: at for name, at, value, _ in sink.readings()[::-1] if name == "line-3/load"}  # the first of each
    assert times[5.0] <= gaps["line-3/load"].time < gaps["line-3/load"].end, "payloads are stamped after their metrics"
    assert abs(gaps["line-3/load"].end - times[7.0]) < 10_000_000
    assert "1 messages of edge node plant/line-3 never came, from seq 7 on" in gaps["line-3/load"].detail

    before = time.time_ns()
    n.die()
    wait_until(lambda: running.counter("deaths") == 1)
    wait_until(lambda: sum(status == GONE for *_, status in sink.readings()) == 2)
    dead = {name: at for name, at, _, status in sink.readings() if status == GONE}
    assert set(dead) == {"line-3/load", "cnc/count"}
    assert all(at >= before for at in dead.values()), "the will was written long before"
    wait_until(lambda: running.counter("in_flight") == 0)
    assert sink.letters() == []


def test_state_says_when_the_host_goes_and_comes(
    mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = host(run, broker, sink)
    n = live(broker)
    wait_until(lambda: len(n.states) == 1)
    running.cut()
    wait_until(lambda: len(n.states) >= 3)
    first, lost, again = n.states[:3]
    assert [each["online"] for each in n.states[:3]] == [True, False, True]
    assert lost["timestamp"] == first["timestamp"], "the will belongs to the birth before it"
    assert again["timestamp"] > first["timestamp"]
    lie = {"online": False, "timestamp": 1}
    n.client.publish(STATE, json.dumps(lie), qos=1, retain=True)
    wait_until(lambda: lie in n.states and n.states[-1] == again, what="somebody else's lie is corrected")
    running.stop()
    wait_until(lambda: not n.states[-1]["online"], what="an orderly end")


def test_births_are_asked_for_when_the_host_starts_late(
    mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    n = live(broker)
    n.births()
    for i in range(1, 4):
        n.data(float(i))
    running = host(run, broker, sink)
    n.data(4.0)
    wait_until(lambda: n.asked == 1)
    wait_until(lambda: running.counter("births") == 2)
    n.data(5.0)
    wait_until(lambda: loads(sink) == [4.0, 5.0])
    wait_until(sink.letters)
    assert "aliases cannot be told" in sink.letters()[0].reason, "4.0 by alias, before any birth: kept, not guessed"


def test_what_was_not_on_disk_is_read_again_by_the_births_of_its_time(
    mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any
) -> None:
    broker = mosquitto(max_inflight_messages=200)
    running = host(run, broker, sink, rebirth=False)
    n = live(broker)
    n.births()
    n.data(1.0)
    wait_until(lambda: loads(sink) == [0.0, 1.0] and running.counter("in_flight") == 0)
    sink.hold = True
    held = len(sink.calls)
    n.data(2.0)
    e = n.edge
    n.publish(e.nbirth(e.metric("speed", 50.0, alias=1), bdseq=1))  # alias 1 is something else from here on
    n.publish(e.send("NDATA", e.metric(None, 51.0, alias=1)))
    wait_until(lambda: len(sink.readings(held)) == 3)
    said = [(name, value) for name, _, value, _ in sink.readings(held)]
    assert said == [("line-3/load", 2.0), ("line-3/speed", 50.0), ("line-3/speed", 51.0)]
    again = len(sink.calls)
    running.cut()
    wait_until(lambda: len(sink.readings(again)) >= 3 + 3)  # 3 signals are marked at the loss
    assert [(n_, v) for n_, _, v, status in sink.readings(again) if not status] == said
    assert [r for _, _, r in sink.deliveries(again)] == [True] * 3
    sink.release()
    sink.hold = False
    n.publish(e.send("NDATA", e.metric(None, 52.0, alias=1)))
    wait_until(lambda: sink.readings()[-1][2] == 52.0, what="and the sequence goes on")
    assert running.counter("held") == 0


def test_what_the_broker_kept_is_read_by_the_births_of_an_earlier_run(
    mosquitto: Any, run: Any, sink: Any, new_sink: Any, live: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    running = host(run, broker, sink, rebirth=False)
    n = live(broker)
    n.births()
    wait_until(lambda: loads(sink) == [0.0] and running.counter("in_flight") == 0)
    running.stop()
    for i in range(1, 4):
        n.data(float(i))
    later = new_sink()
    again = host(run, broker, later, rebirth=False)
    wait_until(lambda: loads(later) == [1.0, 2.0, 3.0])
    assert (again.counter("births"), again.counter("held")) == (0, 0)


def test_history_goes_its_own_way(mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any) -> None:
    broker = mosquitto()
    running = host(run, broker, sink)
    n = live(broker)
    n.births()
    e = n.edge
    old = e.metric(None, 41.0, alias=1, isHistorical=True)
    n.publish(e.send("NDATA", old, e.metric(None, 42.0, alias=1)))
    n.publish(e.send("NDATA", e.metric(None, 43.0, alias=1, isHistorical=True)))
    wait_until(lambda: sorted(loads(sink)) == [0.0, 41.0, 42.0, 43.0])
    wait_until(lambda: running.counter("in_flight") == 0)
    assert sorted(float(v) for batch in sink.past for v in batch.value) == [41.0, 43.0]
    sessions = {call.delivery.session for call in sink.calls if call.delivery is not None}
    assert len(sessions) == 2, "the past is known apart, for the journal may have but one of the two"


def test_check_hears_births_and_disturbs_nobody(
    mosquitto: Any, configure: Any, context: SourceContext, live: Any
) -> None:
    broker = mosquitto()
    n = live(broker)
    timer = threading.Timer(0.5, n.births)
    timer.start()
    try:
        lines = asyncio.run(check(configure(broker, format="sparkplug"), context, seconds=1.5))
    finally:
        timer.join()
    assert not [line for line in lines if line.level == "fail"], lines
    assert any("spBv1.0/plant/NBIRTH/line-3" in line.subject for line in lines), lines
    assert n.asked == 0
    assert n.states == []
    assert not (context.data / f"{context.name}.sparkplug").exists()


def test_state_in_the_form_of_2_2(mosquitto: Any, run: Any, sink: Any, live: Any, wait_until: Any) -> None:
    broker = mosquitto()
    n = live(broker)
    said: list[bytes] = []  # without repetitions: what is retained may come beside what is published

    def hear(_client: Any, _userdata: Any, message: Any) -> None:
        if said[-1:] != [message.payload]:
            said.append(message.payload)

    n.client.on_message = hear
    n.client.subscribe("STATE/line-3", 1)
    running = host(run, broker, sink, state="2.2")
    wait_until(lambda: said[-1:] == [b"ONLINE"])
    before = len(said)
    running.cut()
    wait_until(lambda: said[before:] == [b"OFFLINE", b"ONLINE"], what="the will, and that we are there again")
    running.stop()
    wait_until(lambda: said[-1] == b"OFFLINE")
