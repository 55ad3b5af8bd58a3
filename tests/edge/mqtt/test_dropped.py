"""The broker's counter of what its queues dropped: when it has risen, and a broker that does not like to be asked."""

import socket
import threading
from pathlib import Path
from typing import Any

from edge.sources.mqtt.dropped import TOPIC, BrokerDrops
from edge.sources.mqtt.frames import Frames
from edge.sources.mqtt.session import SessionFile
from fieldlab.model import Place, SignalKey

SIGNAL = SignalKey(Place("x", "y", "z", "cnc-07"), "load")


def told(drops: BrokerDrops, count: bytes) -> list[bytes]:
    """The topics that are left when the broker has told its counter among other messages."""
    topics = [b"a", TOPIC.encode(), b"b"]
    frames = Frames(topics, [b"1", count, b"2"], [0x32, 0x30, 0x32], [b"\0\1", b"", b"\0\2"])
    drops.take(frames)
    assert (frames.payloads, frames.ids) == ([b"1", b"2"], [b"\0\1", b"\0\2"])
    return frames.topics


def test_a_rise_is_a_gap_also_over_a_restart_of_either_side(sink: Any, tmp_path: Path) -> None:
    sink.index(SIGNAL)

    def run() -> BrokerDrops:
        session = SessionFile(tmp_path / "s", "mqtt://b", "me")
        session.connected(present=True, filters=("#",))
        drops = BrokerDrops("mqtt-0", sink, session)
        drops.started()
        return drops

    def details() -> list[str]:
        return [gap.detail.split(",")[0] for gap in sink.known_gaps.values()]

    first = run()
    assert told(first, b"7") == [b"a", b"b"]
    told(first, b"7")
    told(first, b"-1")
    told(first, b"x" * 40)
    told(first, b"9" * 40)
    assert first.seen == 7
    assert details() == [], "what it was before we came is not our loss"
    second = run()
    told(second, b"12")
    assert details() == ["the broker's queues dropped 5 messages"]
    told(second, b"3")  # it began anew, and has dropped three since
    assert details()[-1] == "the broker's queues dropped 3 messages"
    assert {(gap.cause, gap.state, gap.lost) for gap in sink.known_gaps.values()} == {
        ("queue_overflow", "unverifiable", 0)
    }
    assert second.seen == 3


def test_a_broker_that_ends_the_connection_rather_than_answer_is_asked_once(
    run: Any, sink: Any, wait_until: Any
) -> None:
    """As brokers in the cloud do with topics that they do not offer."""
    heard: list[bool] = []  # of each connection: whether it asked for the counter

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                number = len(heard)
                heard.append(False)
                connection.recv(4096)
                connection.sendall(b"\x20\x02\x00\x00")  # CONNACK
                while data := connection.recv(4096):
                    if data[0] != 0x82:  # SUBSCRIBE
                        continue
                    if TOPIC.encode() in data:
                        heard[number] = True
                        break
                    connection.sendall(b"\x90\x03" + data[2:4] + b"\x01")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()

        class Broker:
            url = f"mqtt://127.0.0.1:{listener.getsockname()[1]}"
            user = ""
            password_file = None

        running = run(Broker, sink, protocol="3.1.1")
        wait_until(lambda: len(heard) == 2 and running.source.status().connected)
        assert heard == [True, False]
        listener.shutdown(socket.SHUT_RDWR)
