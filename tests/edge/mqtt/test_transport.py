"""What the connection itself does at a real broker: our own state, refusals, in-flight messages, the session's end."""

import json
import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig
from fieldlab.config import Duration
from fieldlab.errors import ConfigError

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"
STATUS = "fieldlab/_agent/line-3"


class Listener:
    """Another client: what it has heard, in order."""

    def __init__(self, broker: Any, *topics: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.subscribed = threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.on_message = lambda _c, _u, m: self.heard.append((m.topic, bytes(m.payload)))
        self.client.on_subscribe = lambda *_: self.subscribed.set()

        def subscribe(*_: Any) -> None:
            self.client.subscribe([(each, 1) for each in topics])

        self.client.on_connect = subscribe
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert self.subscribed.wait(20)

    def states(self) -> list[bytes]:
        return [payload for topic, payload in self.heard if topic == STATUS]


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    """`listen(broker, *topics)` connects another client."""
    made: list[Listener] = []

    def start(broker: Any, *topics: str) -> Listener:
        made.append(Listener(broker, *topics))
        return made[-1]

    yield start
    for each in made:
        each.client.disconnect()
        each.client.loop_stop()


def access(folder: Path, *lines: str) -> str:
    """A line of mosquitto's configuration: the user `fieldlab` may do what `lines` say, and nothing else."""
    file = folder / "access"
    file.write_text("\n".join(["user fieldlab", *lines]) + "\n")
    file.chmod(0o600)
    return f"acl_file {file}"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_our_own_state_is_kept_at_the_broker(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, listen: Any, protocol: str
) -> None:
    broker = mosquitto()
    listener = listen(broker, STATUS)
    running = run(broker, sink, protocol=protocol, status_topic=STATUS, topics=("fieldlab/#",))
    wait_until(lambda: listener.states() == [b"online"])
    running.cut()  # as `kill -9` does: the socket ends without a word
    wait_until(lambda: listener.states() == [b"online", b"offline", b"online"])
    publisher(broker).send(TOPIC, payload(1.0))
    wait_until(lambda: sink.values() == [1.0])
    running.stop()
    wait_until(lambda: listener.states()[3:] == [b"offline"])
    late = listen(broker, STATUS)
    wait_until(lambda: late.states() == [b"offline"], what="retained, for whoever comes later")
    assert running.source.status().counters["unsaid"] == 0
    assert {short for short, *_ in sink.readings()} == {"printer-1/nozzle"}, "our own state is no signal"


def test_no_state_is_published_unless_asked_for(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, listen: Any
) -> None:
    broker = mosquitto()
    listener = listen(broker, "#")
    running = run(broker, sink)
    running.cut()
    wait_until(lambda: running.counter("connects") == 2 and running.source.status().connected)
    publisher(broker).send(TOPIC, payload(1.0))
    wait_until(lambda: sink.values() == [1.0] and listener.heard)
    assert [topic for topic, _ in listener.heard] == [TOPIC]


def test_what_the_broker_refuses_to_take_is_said(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any, tmp_path: Path
) -> None:
    broker = mosquitto(config=[access(tmp_path, "topic read fieldlab/#", "topic write other/#")])
    running = run(broker, sink, status_topic=STATUS)
    wait_until(lambda: "refuses what we publish" in running.source.status().error)
    status = running.source.status()
    assert STATUS in status.error
    assert "Not authorized" in status.error
    assert status.connected, "what is granted is read"


@pytest.mark.parametrize("topic", ["fieldlab/agent", "fieldlab/_agent/#", "+/_agent", "$SYS/_agent"])
def test_topics_of_our_state_that_make_no_sense(context: Any, sink: Any, topic: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KIND.create(MqttConfig(url="mqtt://host", status_topic=topic), context, sink)
    assert caught.value.key == "status_topic"


def test_a_primary_host_has_its_will_already(context: Any, sink: Any) -> None:
    with pytest.raises(ConfigError, match="one"):
        KIND.create(MqttConfig(url="mqtt://host", format="sparkplug", status_topic=STATUS), context, sink)


def test_the_broker_keeps_to_our_receive_maximum(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto(max_inflight_messages=0)
    running = run(broker, sink, in_flight=50)
    sink.hold = True
    publisher(broker).send(TOPIC, *(payload(float(i), i) for i in range(300)))
    wait_until(lambda: running.counter("in_flight") == 50)
    client: Any = running.source._client
    assert not select.select([client.socket()], [], [], 0.3)[0], "nothing waits in the socket: it was not sent"
    assert not client._buffer
    sink.hold = False
    sink.release()
    wait_until(lambda: len(sink.values()) == 300)
    assert sink.values() == [float(i) for i in range(300)]


def test_the_session_ends_when_we_said(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any, listen: Any
) -> None:
    broker = mosquitto(config=["sys_interval 1"])
    expired = listen(broker, "$SYS/broker/clients/expired")
    first = run(broker, sink, session_expiry=Duration(1))
    publish = publisher(broker).send
    publish(TOPIC, payload(1.0, 1))
    wait_until(lambda: sink.values() == [1.0])
    session = first.source._session.now.id
    first.stop()
    publish(TOPIC, payload(2.0, 2))
    wait_until(lambda: any(int(payload) for _, payload in expired.heard), 30.0)
    second = run(broker, sink, session_expiry=Duration(1))
    publish(TOPIC, payload(3.0, 3))
    wait_until(lambda: 3.0 in sink.values())
    assert sink.values() == [1.0, 3.0]
    assert second.source._session.now.id != session
    gaps = [gap for gap in sink.known_gaps.values() if gap.cause == "agent_down"]
    assert [(gap.state, "not kept" in gap.detail) for gap in gaps] == [("ended", True)], "what is lost is said"


def test_subscriptions_follow_the_configuration_within_one_session(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    """Filters that are new, kept and dropped; what the broker kept for us comes, but not of what was dropped."""
    broker = mosquitto()
    topics = {i: TOPIC.replace("printer-1", f"printer-{i}") for i in range(1, 4)}
    filters = {i: f"fieldlab/+/+/+/printer-{i}/+" for i in range(1, 4)}
    first = run(broker, sink, topics=(filters[1], filters[2]))
    session = first.source._session.now.id
    first.stop()
    publish = publisher(broker).send
    publish(topics[1], payload(1.0, 1))
    second = run(broker, sink, topics=(filters[1], filters[3]))
    wait_until(lambda: second.source._session.now.filters == (filters[1], filters[3]))
    for i, topic in topics.items():
        publish(topic, payload(10.0 + i, 10 + i))
    publish(topics[3], payload(20.0, 20))
    wait_until(lambda: 20.0 in sink.values())
    assert sink.values() == [1.0, 11.0, 13.0, 20.0]
    assert second.source._session.now.id == session
    assert json.loads((second.source._session._path).read_bytes())["filters"] == [filters[1], filters[3]]
