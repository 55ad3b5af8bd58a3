"""A pinned certificate against a real mosquitto that signed its own, with a serial number for a name, as devices do."""

import asyncio
import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edge.sources.base import SourceContext
from edge.sources.mqtt.check import check
from edge.sources.mqtt.config import MqttConfig, validate
from edge.sources.mqtt.tls import pin_of
from fieldlab.errors import ConfigError

SERIAL = "01P00A000000000"


def certificate(folder: Path, name: str, year: int = 2020) -> tuple[Path, Path, str]:
    """Certificate, key and fingerprint; it ended years ago, as devices have it, unless `year` is later."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERIAL)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(year, 1, 2, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    der = made.public_bytes(serialization.Encoding.DER)
    return file, secret, hashlib.sha256(der).digest().hex(":").upper()


@pytest.fixture
def printer(mosquitto: Any, tmp_path: Path) -> Any:
    """A broker with TLS, and its certificate: file and fingerprint."""
    tmp_path.chmod(0o755)
    file, key, pin = certificate(tmp_path, "printer")
    broker = mosquitto(user="bblp", password="12345678", listener=[f"certfile {file}", f"keyfile {key}"])
    broker.plain_url, broker.url = broker.url, broker.url.replace("mqtt://", "mqtts://")
    return broker, file, pin


@pytest.mark.parametrize("how", ["fingerprint", "plain", "file"])
def test_the_pinned_certificate_is_spoken_to(
    printer: Any, run: Any, sink: Any, wait_until: Any, tmp_path: Path, how: str
) -> None:
    broker, file, pin = printer
    pinned = {"fingerprint": tmp_path / pin, "plain": Path(pin.replace(":", "").lower()), "file": file}[how]
    running = run(broker, sink, pinned_certificate=pinned, server_name=SERIAL, protocol="3.1.1")
    assert running.source.status().connected
    assert running.source.status().error == ""


def test_another_certificate_is_not_spoken_to(
    printer: Any, run: Any, sink: Any, wait_until: Any, tmp_path: Path
) -> None:
    broker, _, pin = printer
    _, _, other = certificate(tmp_path, "other")
    running = run(broker, sink, wait=False, pinned_certificate=Path(other))
    wait_until(lambda: pin in running.source.status().error)
    error = running.source.status().error
    assert other in error
    assert f'pinned_certificate = "{pin}"' in error
    assert running.counter("connects") == 0
    assert "bblp" not in broker.log, "no user was told"


def test_without_a_pin_it_is_not_trusted_and_check_shows_what_to_write(
    printer: Any, configure: Any, context: SourceContext
) -> None:
    broker, _, pin = printer
    lines = asyncio.run(check(configure(broker), context, seconds=0.1))
    assert [line.level for line in lines] == ["fail", "warn"]
    assert "certificate" in lines[0].text.lower()
    assert f'pinned_certificate = "{pin}"' in lines[1].text
    pinned = asyncio.run(check(configure(broker, pinned_certificate=Path(pin)), context, seconds=0.1))
    assert pinned[0].level == "ok"
    assert "it is the pinned one" in pinned[-1].text
    other = asyncio.run(check(configure(broker, pinned_certificate=Path("00" * 32)), context, seconds=0.1))
    assert other[0].level == "fail"
    assert "it is not the pinned one" in other[-1].text


def test_a_pin_beside_an_authority_must_hold_too(
    printer: Any, run: Any, sink: Any, wait_until: Any, tmp_path: Path
) -> None:
    broker, file, pin = printer
    running = run(broker, sink, wait=False, pinned_certificate=Path(pin), ca_file=file, server_name=SERIAL)
    wait_until(lambda: "expired" in running.source.status().error, what="the authority's rules hold, too")
    assert running.counter("connects") == 0


def test_an_authority_and_a_serial_number_for_a_name_do_without_a_pin(
    mosquitto: Any, run: Any, sink: Any, wait_until: Any, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    file, key, _ = certificate(tmp_path, "valid", 2090)
    broker = mosquitto(listener=[f"certfile {file}", f"keyfile {key}"])
    broker.url = broker.url.replace("mqtt://", "mqtts://")
    assert run(broker, sink, ca_file=file, server_name=SERIAL).source.status().connected
    nameless = run(broker, sink, wait=False, ca_file=file, client_id="other")
    wait_until(lambda: "is not trusted" in nameless.source.status().error)


@pytest.mark.parametrize(
    ("pinned", "words"),
    [("nowhere.pem", "neither"), ("AA:BB", "neither"), ("text.pem", "no certificate"), ("broken.pem", "neither")],
)
def test_what_is_no_pin(tmp_path: Path, context: SourceContext, pinned: str, words: str) -> None:
    (tmp_path / "text.pem").write_text("hello")
    (tmp_path / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nx\n")
    with pytest.raises(ConfigError, match=words) as caught:
        pin_of(MqttConfig(url="mqtts://host", pinned_certificate=tmp_path / pinned))
    assert caught.value.key == "pinned_certificate"
    with pytest.raises(ConfigError, match="mqtts") as caught:
        validate(MqttConfig(url="mqtt://host", pinned_certificate=Path("00" * 32), machine="m"), context)
    assert caught.value.key == "pinned_certificate"
