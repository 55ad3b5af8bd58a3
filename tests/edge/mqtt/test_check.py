"""`check` against a real mosquitto: says what is wrong, and takes nothing from a running source."""

import asyncio
import base64
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edge.sources.base import CheckLine
from edge.sources.mqtt.check import check

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"


def levels(lines: list[CheckLine]) -> dict[str, str]:
    return {line.subject: line.level for line in lines}


def texts(lines: list[CheckLine], level: str) -> str:
    return " | ".join(f"{line.subject}: {line.text}" for line in lines if line.level == level)


@pytest.fixture
def guarded(mosquitto: Any, tmp_path: Path) -> Any:
    """A broker whose rules allow to subscribe to `fieldlab/#` alone (Debian's mosquitto brings the plug-in)."""
    found = list(Path("/usr/lib").glob("*/mosquitto_dynamic_security.so"))
    if not found:
        pytest.skip("mosquitto_dynamic_security.so is not installed: needs Debian package mosquitto")
    salt = b"twelve bytes"
    password = hashlib.pbkdf2_hmac("sha512", b"secret of the test", salt, 101, 64)
    role = {"rolename": "reader", "acls": [{"acltype": "subscribePattern", "topic": "fieldlab/#", "allow": True}]}
    client = {
        "username": "fieldlab",
        "password": base64.b64encode(password).decode(),
        "salt": base64.b64encode(salt).decode(),
        "iterations": 101,
        "roles": [{"rolename": "reader"}],
    }
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"defaultACLAccess": access, "clients": [client], "roles": [role]}))
    return mosquitto(config=[f"plugin {found[0]}", f"plugin_opt_config_file {rules}"])


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_live_values_unreadable_payloads_and_the_rate(
    mosquitto: Any, configure: Any, context: Any, publisher: Any, payload: Any, protocol: Any
) -> None:
    broker = mosquitto()
    publish = publisher(broker).send
    done = threading.Event()

    def traffic() -> None:
        i = 0
        while not done.wait(0.02):
            i += 1
            publish(TOPIC, payload(210.0 + i, i))
            publish(TOPIC.replace("nozzle", "bed"), "broken")
            publish(TOPIC.replace("nozzle", "_part"), "{}")

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        lines = asyncio.run(check(configure(broker, protocol=protocol), context, seconds=0.5))
    finally:
        done.set()
        thread.join()
    found = levels(lines)
    assert found["mqtt-0 fieldlab/+/+/+/+/+"] == "ok"
    assert found[f"mqtt-0 {TOPIC}"] == "ok"
    assert found["mqtt-0 " + TOPIC.replace("nozzle", "bed")] == "warn"
    assert "not JSON" in texts(lines, "warn")
    assert not texts(lines, "fail")
    nozzle = next(line for line in lines if line.subject == f"mqtt-0 {TOPIC}")
    assert nozzle.data["value"] > 210
    assert nozzle.data["messages"] >= 2
    assert any("messages/s" in line.text and "readings_per_s" in line.data for line in lines)


def test_no_traffic_is_a_warning(mosquitto: Any, configure: Any, context: Any) -> None:
    lines = asyncio.run(check(configure(mosquitto()), context, seconds=0.2))
    assert "nothing came" in texts(lines, "warn")
    assert not texts(lines, "fail")


def test_a_dead_broker_fails(configure: Any, context: Any, free_port: Any, mosquitto: Any) -> None:
    broker = mosquitto(start=False)
    lines = asyncio.run(check(configure(broker), context, seconds=0.2))
    assert "cannot be reached" in texts(lines, "fail")


def test_a_wrong_password_fails(mosquitto: Any, configure: Any, context: Any) -> None:
    broker = mosquitto()
    broker.password_file.write_text("wrong\n")
    assert "refuses user 'fieldlab'" in texts(asyncio.run(check(configure(broker), context, seconds=0.2)), "fail")
    broker.password_file.unlink()
    assert "missing" in texts(asyncio.run(check(configure(broker), context, seconds=0.2)), "fail")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_refused_subscription(
    guarded: Any,
    configure: Any,
    context: Any,
    run: Any,
    sink: Any,
    publisher: Any,
    payload: Any,
    wait_until: Any,
    protocol: Any,
) -> None:
    keys = {"topics": ("fieldlab/#", "secret/#"), "protocol": protocol}
    failed = texts(asyncio.run(check(configure(guarded, **keys), context, seconds=0.2)), "fail")
    assert "mqtt-0 secret/#: subscription refused" in failed
    assert "mqtt-0 fieldlab/#" not in failed
    running = run(guarded, sink, **keys)
    wait_until(lambda: running.source.status().missing)
    status = running.source.status()
    assert list(status.missing) == ["secret/#"]
    assert status.connected
    assert "secret/#" in status.error
    publisher(guarded).send(TOPIC, payload(1.0))
    wait_until(lambda: sink.values() == [1.0], what="what is granted is read")


def test_check_takes_nothing_from_a_running_source(
    mosquitto: Any, configure: Any, context: Any, run: Any, sink: Any, publisher: Any, payload: Any, wait_until: Any
) -> None:
    broker = mosquitto()
    shared = "$share/workers/fieldlab/+/+/+/+/+"
    running = run(broker, sink, topics=(shared,))
    session = running.source._session.now.id
    publish = publisher(broker).send
    done = threading.Event()
    sent: list[float] = []

    def traffic() -> None:
        while not done.wait(0.002):
            publish(TOPIC, payload(float(len(sent)), len(sent)))
            sent.append(float(len(sent)))

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        for _ in range(2):
            lines = asyncio.run(check(configure(broker, topics=(shared,)), context, seconds=0.3))
            assert levels(lines)[f"mqtt-0 {shared}"] == "ok"
    finally:
        done.set()
        thread.join()
    wait_until(lambda: len(sink.values()) == len(sent))
    assert sink.values() == sent
    assert running.counter("connects") == 1
    running.stop()
    later = run(broker, sink, topics=(shared,))
    assert later.source._session.now.id == session
    assert not list(context.data.glob("*check*"))
