"""TLS against a real mosquitto that demands client certificates: verified both ways, by the name that we configure."""

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import load
from edge.sources.base import SourceContext
from edge.sources.mqtt.check import check
from edge.sources.mqtt.tls import fingerprint
from fieldlab import cli

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"


class Authority:
    """Signs certificates, all in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        self.file = self._write("ca", self._sign("test authority", self.key.public_key(), [], authority=True))

    def issue(self, name: str, *names: x509.GeneralName) -> tuple[Path, Path]:
        """Certificate and key of `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self.folder / f"{name}.key"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._write(name, self._sign(name, key.public_key(), list(names), authority=False)), file

    def _sign(
        self, name: str, key: ec.EllipticCurvePublicKey, names: list[x509.GeneralName], *, authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


@pytest.fixture
def secured(mosquitto: Any, tmp_path: Path) -> Any:
    """A broker with TLS whose certificate names `broker.factory` alone, and an authority."""
    tmp_path.chmod(0o755)
    authority = Authority(tmp_path)
    certificate, key = authority.issue("broker", x509.DNSName("broker.factory"))
    lines = [f"cafile {authority.file}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true"]
    broker = mosquitto(listener=lines)
    broker.url = broker.url.replace("mqtt://", "mqtts://")
    return broker, authority


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_verified_both_ways(secured: Any, run: Any, sink: Any, payload: Any, wait_until: Any, protocol: str) -> None:
    broker, authority = secured
    certificate, key = authority.issue("agent")
    rights = {"ca_file": authority.file, "cert_file": certificate, "key_file": key, "server_name": "broker.factory"}
    running = run(broker, sink, protocol=protocol, **rights)
    publisher = Client(CallbackAPIVersion.VERSION2)
    publisher.username_pw_set(broker.user, broker.password)
    publisher.tls_set(str(authority.file), str(certificate), str(key))
    publisher.tls_insecure_set(True)  # the test's publisher has no say over the name
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()
    big = " " * 100_000  # more than one TLS record
    try:
        for i in range(300):
            publisher.publish(TOPIC, payload(float(i), i) + (big if i % 100 == 50 else ""), qos=1)
        wait_until(lambda: len(sink.values()) == 300)
    finally:
        publisher.disconnect()
        publisher.loop_stop()
    assert sink.values() == [float(i) for i in range(300)]
    assert running.counter("connects") == 1


def test_what_is_not_verified_is_not_spoken_to(
    secured: Any, run: Any, sink: Any, configure: Any, context: SourceContext, wait_until: Any
) -> None:
    broker, authority = secured
    certificate, key = authority.issue("agent", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    rights = {"ca_file": authority.file, "cert_file": certificate, "key_file": key}
    running = run(broker, sink, wait=False, **rights)  # the certificate does not name 127.0.0.1
    wait_until(lambda: "certificate" in running.source.status().error.lower())
    assert running.counter("connects") == 0
    lines = asyncio.run(check(configure(broker, **rights), context, seconds=0.2))
    assert [line.level for line in lines] == ["fail", "warn"]
    assert "pinned_certificate" in lines[1].text
    del rights["cert_file"], rights["key_file"]
    lines = asyncio.run(check(configure(broker, server_name="broker.factory", **rights), context, seconds=0.2))
    assert [line.level for line in lines] == ["fail", "warn"], "no client certificate"


def test_discovery_speaks_tls_and_prints_how(
    secured: Any, payload: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker, authority = secured
    certificate, key = authority.issue("agent")
    publisher = Client(CallbackAPIVersion.VERSION2)
    publisher.username_pw_set(broker.user, broker.password)
    publisher.tls_set(str(authority.file), str(certificate), str(key))
    publisher.tls_insecure_set(True)
    publisher.connect("127.0.0.1", broker.port)
    publisher.loop_start()
    publisher.publish(TOPIC, payload(1.5, 1), qos=1, retain=True).wait_for_publish(20)
    publisher.disconnect()
    publisher.loop_stop()
    rights = ["--username", broker.user, "--password-file", str(broker.password_file), "--ca-file", str(authority.file)]
    rights += ["--cert-file", str(certificate), "--key-file", str(key)]

    def discover(*more: str) -> tuple[int, str, str]:
        code = cli.main(["discover", broker.url, *rights, "--seconds", "0.5", *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = discover()
    assert (code, out) == (1, ""), "the certificate has another name"
    assert "server_name" in err
    assert str(broker.password) not in err
    code, out, _ = discover("--server-name", "broker.factory", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["sources"][0]["server_name"]) == (0, True, "broker.factory")
    (topic,) = found["topics"]
    assert (topic["topic"], topic["format"], topic["types"]) == (TOPIC, "json", ["number"])
    assert (topic["messages"], topic["retained"], topic["rate"]) == (0, 1, 0.0)
    pin = fingerprint(ssl.PEM_cert_to_DER_cert((tmp_path / "broker.pem").read_text()))
    code, out, err = discover("--pinned-certificate", pin, "--server-name", "broker.factory")
    assert code == 0, err
    file = tmp_path / "line.toml"
    file.write_text(out, "utf-8")
    (source,) = load(file).sources
    made: Any = source.config
    assert (made.pinned_certificate.name, made.server_name, made.cert_file) == (pin, "broker.factory", certificate)
    code, _, err = discover("--pinned-certificate", "00" * 32, "--server-name", "broker.factory")
    assert code == 1
    assert "another certificate" in err
