"""A dialect that speaks, at a real broker: will, greetings, requests, farewell."""

from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.speaker import Message, Speaker

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"


class Talker(Speaker):
    """Answers each message, and says who it is."""

    counters: dict[str, int] = {}  # noqa: RUF012  # as a dialect has it

    def __init__(self) -> None:
        self.wills = 0
        self.present: list[bool] = []
        self.losses = 0
        self.answers: list[Message] = []

    def read(self, topic: bytes, payload: bytes, *_: Any, **__: Any) -> int:
        if topic == TOPIC.encode():
            self.answers.append(Message("told/answer", payload))
        raise Ignored("ignored")

    def place_of(self, _topic: bytes) -> None:
        return None

    def will(self) -> Message:
        self.wills += 1
        return Message("told/state", f"lost {self.wills}".encode(), 1, retain=True)

    def greetings(self, *, present: bool) -> list[Message]:
        self.present.append(present)
        return [Message("told/state", f"here {len(self.present)}".encode(), 1, retain=True)]

    def drain(self) -> list[Message]:
        taken, self.answers = self.answers, []
        return taken

    def lost(self) -> None:
        self.losses += 1

    def farewell(self) -> list[Message]:
        return [Message("told/state", b"gone", 1, retain=True)]


@pytest.fixture
def listener() -> Any:
    """`listener(broker)` gives the list to which each message under `told/` is added: (topic, payload)."""
    made: list[Client] = []

    def listen(broker: Any) -> list[tuple[str, str]]:
        heard: list[tuple[str, str]] = []
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        client.username_pw_set(broker.user, broker.password)
        client.on_connect = lambda *_: (client.subscribe("told/#", 1), None)[1]
        client.on_message = lambda _c, _u, message: heard.append((message.topic, message.payload.decode()))
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        made.append(client)
        return heard

    yield listen
    for client in made:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_dialect_speaks(
    mosquitto: Any,
    run: Any,
    sink: Any,
    publisher: Any,
    wait_until: Any,
    listener: Any,
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
) -> None:
    broker = mosquitto()
    talker = Talker()
    monkeypatch.setattr("edge.sources.mqtt.source.dialect_of", lambda *_: talker)
    running = run(broker, sink, protocol=protocol)
    heard = listener(broker)
    wait_until(lambda: ("told/state", "here 1") in heard)

    publisher(broker).send(TOPIC, "how are you?")
    wait_until(lambda: ("told/answer", "how are you?") in heard, what="what a dialect says later is sent")

    running.cut()
    wait_until(lambda: ("told/state", "here 2") in heard, what="a greeting at each connection")
    assert ("told/state", "lost 1") in heard, "the broker published the will"
    assert talker.present == [False, True]
    assert (talker.losses, talker.wills) == (1, 2)

    running.stop()
    wait_until(lambda: heard[-1] == ("told/state", "gone"), what="an orderly end says farewell")
    assert ("told/state", "lost 2") not in heard, "and the will is not published"
    assert running.counter("said") == 4
    assert running.counter("unsaid") == 0
