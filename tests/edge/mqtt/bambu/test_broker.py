"""Bambu at a real mosquitto that plays the printer: what is asked after each connect, and how often."""

import json
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

SERIAL = "01P00A000000000"


@pytest.fixture
def requests(mosquitto: Any) -> Any:
    """A broker, and the requests that the printer behind it gets."""
    broker = mosquitto(user="bblp", password="12345678")
    heard: list[dict[str, Any]] = []

    def on_message(_client: Client, _userdata: Any, message: MQTTMessage) -> None:
        heard.append(json.loads(message.payload))

    printer = Client(CallbackAPIVersion.VERSION2)
    printer.username_pw_set(broker.user, broker.password)
    printer.on_message = on_message
    printer.on_connect = lambda client, *_: client.subscribe(f"device/{SERIAL}/request")
    printer.reconnect_delay_set(1, 1)
    printer.connect("127.0.0.1", broker.port)
    printer.loop_start()
    yield broker, printer, heard
    printer.disconnect()
    printer.loop_stop()


@pytest.mark.parametrize("every", [0.3, 300.0])
def test_the_whole_is_asked_for_again_after_a_loss_when_it_is_time(
    requests: Any, run: Any, sink: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch, every: float
) -> None:
    monkeypatch.setattr("edge.sources.mqtt.bambu.dialect.ASK_EVERY", every)
    broker, printer, heard = requests
    keys = {"format": "bambu", "topic": f"device/{SERIAL}", "machine": "p1s-1", "protocol": "3.1.1", "session": "clean"}
    running = run(broker, sink, **keys)
    wait_until(lambda: len(heard) == 1)
    report = {
        "print": {"command": "push_status", "msg": 0, "sequence_id": "1", "gcode_state": "IDLE", "subtask_name": ""}
    }
    printer.publish(f"device/{SERIAL}/report", json.dumps(report))
    wait_until(lambda: len(sink.readings()) == 3)
    running.cut()
    wait_until(lambda: running.counter("connects") == 2 and running.source._subscriptions.answered)
    lost = [name for name, _, _, status in sink.readings() if status == 0x80310000]
    assert sorted(lost) == ["p1s-1/job", "p1s-1/state", "p1s-1/state_text"]
    if every < 1:
        wait_until(lambda: len(heard) == 2)
    printer.publish(f"device/{SERIAL}/report", json.dumps({"print": {**report["print"], "bed_temper": 20}}))
    wait_until(lambda: sink.readings()[-1][0] == "p1s-1/job" and len(sink.readings()) == 10)
    assert running.counter("asked") == len(heard) == (2 if every < 1 else 1)
    assert [request["pushing"]["sequence_id"] for request in heard] == ["1", "2"][: len(heard)]
    assert set(sink.guarantees.values()) == {"from-receipt"}
