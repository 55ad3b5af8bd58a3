"""Certificates and pins: the best is used, never silently less, and a changed server is refused."""

import stat
from typing import Any

import pytest
from cryptography import x509

from edge.sources.opcua.certificates import (
    Pin,
    SecurityRefusedError,
    distrust,
    load_identity,
    pins,
    read_pin,
    trust,
)
from edge.sources.opcua.security import Choice, choose


def test_the_best_is_pinned_and_a_changed_certificate_refused(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any, tmp_path: Any
) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: sink.readings("a"))
    files = list((context.data / "certificates" / "servers").glob("*.json"))
    pin: Any = read_pin(files[0])
    assert (pin.policy, pin.mode, pin.url) == ("Aes256_Sha256_RsaPss", "SignAndEncrypt", server.url)
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start(pki=str(tmp_path / "another"))
    wait_until(lambda: "another certificate" in source.status.error, 30)
    assert str(files[0]) in source.status.error
    assert not source.status.connected
    trust(context.data / "certificates", source.status.error.split("certs trust", 1)[1].split()[2])
    wait_until(lambda: source.status.connected, 30)
    new: Any = read_pin(files[0])
    assert new.fingerprint != pin.fingerprint


def test_what_was_rejected_is_not_trusted_at_first_use(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any
) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: sink.readings("a"))
    folder = context.data / "certificates"
    ((_, pin),) = pins(folder, "servers")
    with pytest.raises(SecurityRefusedError, match=f"Trusted are: {pin.fingerprint}"):
        distrust(folder, pin.fingerprint[:15])
    assert distrust(folder, pin.fingerprint[:16]) == [pin]
    assert pins(folder, "servers") == []
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start()
    wait_until(lambda: "is not trusted" in source.status.error, 30)
    trust(folder, pin.fingerprint)
    wait_until(lambda: source.status.connected, 30)


def test_less_than_before_is_refused(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: sink.readings("a"))
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start(security=["none", "Basic256Sha256"])
    wait_until(lambda: "less is never used silently" in source.status.error, 30)
    assert "Basic256Sha256/SignAndEncrypt" in source.status.error


def test_none_must_be_written(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}}, security=["none"])
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: 'security = "none"' in source.status.error)
    assert sink.readings() == []
    source.stop()
    run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))


def test_a_server_that_does_not_trust_us_is_named(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}}, accept=False)
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: "trust" in source.status.error, what="what to do, in words")


def test_our_certificate(tmp_path: Any) -> None:
    folder = tmp_path / "data" / "certificates"
    made = load_identity(folder, "line 3/ä")
    assert load_identity(folder, "renamed").fingerprint == made.fingerprint
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [made.uri]
    assert made.uri.endswith(":fieldlab:line_3__")
    for made_for_us in (tmp_path / "data", folder, folder / "own"):
        assert stat.S_IMODE(made_for_us.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "own" / "client.key").stat().st_mode) == 0o600
    (folder / "own" / "client.key").write_text("junk")
    with pytest.raises(SecurityRefusedError, match="delete both"):
        load_identity(folder, "x")


def test_a_damaged_pin_is_not_taken_for_none(tmp_path: Any) -> None:
    (tmp_path / "pin.json").write_text("{")
    with pytest.raises(SecurityRefusedError, match=r"pin\.json"):
        read_pin(tmp_path / "pin.json")
    assert read_pin(tmp_path / "absent.json") is None


def test_what_is_chosen(tmp_path: Any) -> None:
    strong, weak, plain = Choice("Aes256_Sha256_RsaPss", "Sign"), Choice("Basic256Sha256", "SignAndEncrypt"), Choice()
    offered: dict[Choice, Any] = {weak: None, strong: None, plain: None}
    assert sorted(offered, key=lambda c: c.rank) == [plain, strong, weak], "encryption first"
    assert choose("u", None, offered, None, tmp_path) == weak
    assert choose("u", plain, offered, None, tmp_path) == plain
    pin = Pin(url="u", fingerprint="", policy="Aes256_Sha256_RsaPss", mode="Sign", since="")
    assert choose("u", None, offered, pin, tmp_path) == weak, "more than before is fine"
    with pytest.raises(SecurityRefusedError, match="does not offer"):
        choose("u", weak, {plain: offered[plain]}, None, tmp_path)
