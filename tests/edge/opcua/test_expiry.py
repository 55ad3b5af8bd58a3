"""Certificates that end soon are told 30 days ahead, as a finding with a life, and as a figure."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.sources.opcua import certificates
from edge.sources.opcua.certificates import Pin, load_identity, pin_path
from edge.sources.opcua.expiry import Expiry
from fieldlab.model.finding import Finding

NOW = dt.datetime.now(dt.UTC)
REAL = x509.CertificateBuilder


@pytest.fixture
def valid(monkeypatch: Any) -> Callable[[int, int], None]:
    """`valid(-1, 20)`: certificates made from now on are valid from a day ago for 20 days."""

    def make(begins: int, ends: int) -> None:
        real = REAL

        class Builder:
            def __init__(self) -> None:
                self._builder = real()

            def not_valid_before(self, _: dt.datetime) -> "Builder":
                self._builder = self._builder.not_valid_before(NOW + dt.timedelta(days=begins))
                return self

            def not_valid_after(self, _: dt.datetime) -> "Builder":
                self._builder = self._builder.not_valid_after(NOW + dt.timedelta(days=ends, hours=1))
                return self

            def __getattr__(self, name: str) -> Any:
                def call(*arguments: Any, **keys: Any) -> Any:
                    made = getattr(self._builder, name)(*arguments, **keys)
                    if isinstance(made, real):
                        self._builder = made
                        return self
                    return made

                return call

        monkeypatch.setattr("cryptography.x509.CertificateBuilder", Builder)

    return make


def findings(sink: Any) -> list[Finding]:
    return [row for row in sink.rows if isinstance(row, Finding)]


def look(expiry: Expiry, wait_until: Any) -> None:
    expiry.look()
    wait_until(lambda: expiry._waiting is None or expiry._waiting.done())
    expiry.look()  # notes that it is kept


def test_a_finding_is_raised_once_worsens_and_is_cleared(
    valid: Any, table: Any, context: Any, sink: Any, new_sink: Any, wait_until: Any, monkeypatch: Any, shared: Any
) -> None:
    server = shared({})
    config = table(server, ["a"], security="best")
    folder = context.data / "certificates"
    valid(-1, 20)
    identity = load_identity(folder, "line-3")
    expiry = Expiry(config, context, sink)
    look(expiry, wait_until)
    (first,) = findings(sink)
    assert (first.state, first.severity, first.revision) == ("raised", "warning", 1)
    assert (first.place.path, first.signal, first.chart, first.rule) == (
        "drachten/shavers/3/cnc-07", "_certificate.own", "health", "certificate_expiry",
    )  # fmt: skip
    assert (first.statistic, first.limit) == (20.0, 30.0)
    assert "fieldlab certs renew" in first.detail
    assert str(identity.certificate.not_valid_after_utc.date()) in first.detail
    assert expiry.days == {"certificate_days": 20}
    expiry.look()
    again = new_sink()
    look(Expiry(config, context, again), wait_until)
    assert findings(again) == [], "not a second time after a restart"
    (context.data / "opcua" / "opcua-0.expiry.json").unlink()
    look(Expiry(config, context, again), wait_until)
    assert [f.id for f in findings(again)] == [first.id], "also without that file it is the same finding"
    monkeypatch.setattr("edge.sources.opcua.expiry.time.time_ns", lambda: int((NOW.timestamp() + 14 * 86400) * 1e9))
    later = Expiry(config, context, sink)
    look(later, wait_until)
    assert [(f.id, f.severity, f.revision, f.limit) for f in findings(sink)[1:]] == [(first.id, "alarm", 2, 7.0)]
    monkeypatch.setattr("edge.sources.opcua.expiry.time.time_ns", lambda: int((NOW.timestamp() + 21 * 86400) * 1e9))
    valid(-1, 1000)
    certificates.renew_identity(folder, "line-3")
    look(later, wait_until)
    assert [(f.id, f.state, f.revision) for f in findings(sink)[2:]] == [(first.id, "cleared", 3)]
    assert later.days["certificate_days"] > 900


def test_those_of_users_and_servers(
    table: Any, context: Any, sink: Any, wait_until: Any, shared: Any, tmp_path: Path
) -> None:
    server = shared({})
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(NOW - dt.timedelta(days=9)).not_valid_after(NOW - dt.timedelta(hours=23))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "user.der").write_bytes(made.public_bytes(Encoding.DER))
    (tmp_path / "user.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "user.pem").chmod(0o600)
    user = {"user_cert_file": str(tmp_path / "user.der"), "user_key_file": str(tmp_path / "user.pem")}
    config = table(server, ["a", {"name": "b", "node": "i=1", "machine": "cnc-08"}], security="best", **user)
    file = pin_path(context.data / "certificates", server.url)
    ends = (NOW + dt.timedelta(days=5, hours=1)).isoformat()
    pin = Pin(url=server.url, fingerprint="ab", policy="p", mode="m", since="", expires=ends)
    certificates.write_private(file, msgspec.json.encode(pin))
    expiry = Expiry(config, context, sink)
    look(expiry, wait_until)
    told = {(f.place.machine, f.signal): f for f in findings(sink)}
    assert set(told) == {(m, f"_certificate.{w}") for m in ("cnc-07", "cnc-08") for w in ("user", "server")}
    assert {f.severity for f in told.values()} == {"alarm"}
    assert "expired on" in told["cnc-07", "_certificate.user"].detail
    assert "fieldlab certs trust" in told["cnc-08", "_certificate.server"].detail
    assert expiry.days == {"user_certificate_days": -1, "server_certificate_days": 5}
    later = msgspec.structs.replace(pin, expires=(NOW + dt.timedelta(days=400)).isoformat())
    certificates.write_private(file, msgspec.json.encode(later))
    look(expiry, wait_until)
    assert {(f.signal, f.state) for f in findings(sink)[4:]} == {("_certificate.server", "cleared")}


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_a_running_agent_tells_it_and_shows_a_renewed_certificate_by_itself(
    interop: Any, valid: Any, table: Any, context: Any, sink: Any, run_source: Any, wait_until: Any, mode: str
) -> None:
    valid(-1, 20)
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best", mode=mode), sink)
    wait_until(lambda: findings(sink), what="at the connect")
    assert source.status.counters["certificate_days"] == 20
    assert source.status.counters["server_certificate_days"] > 30
    old = source.source._link.identity.fingerprint
    valid(-1, 1000)
    new = certificates.renew_identity(context.data / "certificates", "line-3")
    wait_until(lambda: [f.state for f in findings(sink)] == ["raised", "cleared"], what="without a restart")
    wait_until(lambda: source.status.connected and source.source._link.identity.fingerprint == new.fingerprint != old)
    server.ask("set", name="a", type="Double", value=2)
    wait_until(lambda: sink.readings("a")[-1].value == 2)
    assert source.status.counters["reconnects"] == 1
    shown = {
        x509.load_pem_x509_certificate(file.read_bytes()).fingerprint(hashes.SHA256()).hex()
        for file in Path(server.options["pki"]).rglob("*.pem")
        if b"BEGIN CERTIFICATE" in file.read_bytes()
    }
    assert {old, new.fingerprint} <= shown, "what an operator finds at the server"


def test_a_clock_that_is_wrong_is_said(
    interop: Any, valid: Any, table: Any, context: Any, sink: Any, run_source: Any, wait_until: Any, tmp_path: Path
) -> None:
    valid(20, 400)
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: "set the clock (NTP)" in source.status.error)
    assert "the clock of this machine says" in source.status.error
    source.stop()
    for file in (context.data / "certificates" / "own").iterdir():
        file.unlink()
    valid(-40, -10)
    server.kill()
    server.start(accept=False, pki=str(tmp_path / "strict"))
    again = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: "run fieldlab certs renew" in again.status.error, 30, what="the server refuses one that ended")
    assert "expired on" in again.status.error
    wait_until(lambda: [f.severity for f in findings(sink)] == ["alarm"], what="told although it never connected")
