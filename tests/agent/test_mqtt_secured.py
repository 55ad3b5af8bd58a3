"""Two brokers in one agent, one with TLS, client certificates and access rules; `kill -9` of agent and of broker.

What each broker was given is on disk and in the store, once.
"""

import datetime as dt
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.enums import CallbackAPIVersion

MESSAGES = 4000
SIGNALS = 4
START = 1_763_900_000_000_000_000
STATE = "fieldlab/_agent/secured"


class Authority:
    """Signs certificates in one folder, its own included (`ca.pem`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.issue("ca", self._key, authority=True)

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey | None = None, *, authority: bool = False) -> None:
        """Write `name`.pem and `name`.key; `name` is its common name, and a DNS name of it."""
        own = key or ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority" if authority else name)])
        signed = (
            x509.CertificateBuilder(self._name, subject, own.public_key(), x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        (self._folder / f"{name}.pem").write_bytes(signed.public_bytes(encoding))
        secret = own.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self._folder / f"{name}.key").write_bytes(secret)
        (self._folder / f"{name}.key").chmod(0o600)


class Machine:
    """Publishes numbered readings at QoS 1 under the name of a machine, and knows what the broker has taken."""

    def __init__(self, broker: Any, machine: str, certificates: Path | None = None) -> None:
        self.machine = machine
        self.taken = self.sent = 0
        self.states: list[bytes] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        if certificates is None:
            self.client.username_pw_set(broker.user, broker.password)
        else:
            at = f"{certificates}/{machine}"
            self.client.tls_set(f"{certificates}/ca.pem", f"{at}.pem", f"{at}.key")
            self.client.tls_insecure_set(True)  # a machine of the test has no say over the broker's name
        self.client.max_inflight_messages_set(100)
        self.client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]  # seconds, whole or not
        self.client.on_publish = self._on_publish
        self.client.on_message = lambda _c, _u, message: self.states.append(bytes(message.payload))
        connected = threading.Event()
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert connected.wait(20)

    def _on_publish(self, *_: Any) -> None:
        self.taken += 1

    def publish(self, until: int) -> None:
        """Publish up to reading number `until`."""
        for number in range(self.sent, until):
            topic = f"fieldlab/drachten/shavers/3/{self.machine}/axis-{number % SIGNALS}"
            self.client.publish(topic, f'{{"value": {number}, "ts": {START + number * 1_000_000}}}', qos=1)
        self.sent = until

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def machine() -> Iterator[Callable[..., Machine]]:
    """`machine(broker, name, certificates)` connects a machine."""
    made: list[Machine] = []

    def connect(*arguments: Any) -> Machine:
        made.append(Machine(*arguments))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def test_kills_lose_and_double_nothing_behind_tls_and_access_rules(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    mqtt_source: Callable[..., str],
    machine: Callable[..., Machine],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o755)
    authority = Authority(tmp_path)
    for name in ("broker.factory", "reader", "press", "intruder"):
        authority.issue(name)
    rules = tmp_path / "access"
    rules.write_text(
        f"user reader\ntopic read fieldlab/#\ntopic write {STATE}\nuser press\ntopic write fieldlab/#\n"
        "user intruder\ntopic write elsewhere/#\n"
    )
    rules.chmod(0o600)
    tls = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/broker.factory.pem",
        f"keyfile {tmp_path}/broker.factory.key",
    ]
    secured = mosquitto(
        max_inflight_messages=0,
        listener=[*tls, "require_certificate true", "use_identity_as_username true"],
        config=[f"acl_file {rules}"],
    )
    plain = mosquitto(max_inflight_messages=0)
    process = agent(
        f"""[[store]]
kind = "embedded"
[[source]]
kind = "mqtt"
url = "mqtts://127.0.0.1:{secured.port}"
server_name = "broker.factory"
ca_file = "{tmp_path}/ca.pem"
cert_file = "{tmp_path}/reader.pem"
key_file = "{tmp_path}/reader.key"
status_topic = "{STATE}"
"""
        + mqtt_source(plain, f'status_topic = "{STATE}"\n')
    )
    watcher = machine(plain, "watcher")
    watcher.client.subscribe(STATE, 1)
    process.start()
    wait_until(lambda: watcher.states[-1:] == [b"online"])

    press, robot = machine(secured, "press", tmp_path), machine(plain, "robot")
    intruder = machine(secured, "intruder", tmp_path)
    intruder.publish(50)

    press.publish(MESSAGES // 2)
    robot.publish(MESSAGES // 2)
    wait_until(lambda: press.taken > 200, 60.0)
    process.kill()
    wait_until(lambda: watcher.states[-1:] == [b"offline"], what="the broker says what a killed agent cannot")
    wait_until(lambda: (press.taken, robot.taken) == (MESSAGES // 2,) * 2, 60.0, "the brokers took it meanwhile")
    database = secured.folder / "mosquitto.db"
    before = database.stat().st_mtime_ns if database.exists() else 0
    os.kill(secured.pid, signal.SIGUSR1)  # mosquitto saves its database
    wait_until(lambda: database.exists() and database.stat().st_mtime_ns != before)
    secured.kill()
    process.start(connected=False)
    wait_until(lambda: process.status()["sources"][1]["connected"], 60.0, "one broker that is away stops no other")
    assert "cannot be reached" in process.status()["sources"][0]["error"]
    secured.start()

    press.publish(MESSAGES)
    robot.publish(MESSAGES)
    wait_until(lambda: robot.taken > MESSAGES * 3 // 4, 60.0)
    process.kill()
    process.start()
    wait_until(lambda: (press.taken, robot.taken) == (MESSAGES,) * 2, 60.0, "the brokers took everything")

    def good(name: str) -> list[float]:
        columns = [process.query(f"telemetry?signal=drachten/shavers/3/{name}/axis-{i}") for i in range(SIGNALS)]
        return [v for column in columns for v in column["value"] if v is not None]

    def committed() -> int:
        ledger: dict[str, int] = process.ledger()
        return ledger["committed"] - ledger["bad"]

    try:
        wait_until(lambda: committed() >= 2 * MESSAGES, 60.0, "everything is on disk")
        wait_until(process.settled, 60.0)
    finally:
        print(process.ledger(), process.status()["sources"])
    for name in ("press", "robot"):
        found = good(name)
        assert (len(found), math.fsum(found)) == (MESSAGES, math.fsum(range(MESSAGES))), name
    ledger = process.ledger()
    assert committed() == 2 * MESSAGES, "published = committed"
    assert ledger["stored"] == ledger["committed"]
    assert ledger["rejected"] == ledger["overflow"] == 0
    assert not good("intruder"), "the broker's access rules hold"
    assert process.stop() == 0
    wait_until(lambda: watcher.states[-1:] == [b"offline"])
