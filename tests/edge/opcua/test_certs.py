"""Every policy, mode and kind of user against node-opcua; `fieldlab certs`; expiry told ahead."""

import asyncio
import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from edge.sources.opcua import KIND, certificates
from edge.sources.opcua.certificates import load_identity
from edge.sources.opcua.security import POLICIES
from fieldlab.errors import ConfigError


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """Keys of a user with a certificate of 20 days."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=20, hours=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / "user.der").write_bytes(made.public_bytes(Encoding.DER))
    (tmp_path / "user.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "user.pem").chmod(0o600)
    return {"user_cert_file": str(tmp_path / "user.der"), "user_key_file": str(tmp_path / "user.pem")}


def fieldlab(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", *arguments], capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip


def listed(data: Path) -> list[dict[str, Any]]:
    done = fieldlab("certs", "list", "--json", "--data", str(data))
    found: list[dict[str, Any]] = json.loads(done.stdout)["certificates"]
    return found


@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_every_policy_mode_and_user(
    shared: Any, table: Any, context: Any, user: dict[str, str], tmp_path: Path, policy: str, mode: str
) -> None:
    server = shared({"a": {"type": "Double", "value": 1.5}})
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    name = {"username": "reader", "password_file": str(tmp_path / "password")}
    for keys in ({}, name, user):
        lines = asyncio.run(KIND.check(table(server, ["a"], security=f"{policy}/{mode}", **keys), context))
        found = {line.subject: line for line in lines}
        assert not [line.text for line in lines if line.level == "fail"], (policy, mode, keys)
        assert found["opcua-0 cnc-07/a"].data["value"] == 1.5
        assert lines[0].data["security"] == f"{policy}/{mode}"
        warned = [line.data["days"] for line in lines if "user's certificate" in line.text]
        assert warned == ([20] if keys is user else []), "30 days ahead"


def test_users_that_are_refused(
    shared: Any, table: Any, context: Any, user: dict[str, str], tmp_path: Path, sink: Any
) -> None:
    server = shared({"a": {"type": "Double", "value": 1.5}})
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "password").chmod(0o600)
    keys = {"username": "reader", "password_file": str(tmp_path / "password")}
    (line,) = asyncio.run(KIND.check(table(server, ["a"], security="best", **keys), context))
    assert (line.level, "refused the user 'reader'" in line.text) == ("fail", True)
    Path(user["user_key_file"]).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        KIND.create(table(server, ["a"], security="best", **user), context, sink)
    for wrong in ({"security": "none"}, {"username": "x"}, {"user_key_file": None}):
        with pytest.raises(ConfigError):
            KIND.create(table(server, ["a"], **{"security": "best", **user, **wrong}), context, sink)


def test_a_server_that_is_not_listed_is_refused_with_the_command_that_trusts_it(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any, tmp_path: Path
) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1}})
    source = run_source(table(server, ["a"], security="best", trust="listed"), sink)

    def trust() -> None:
        wait_until(lambda: "certs trust" in source.status.error, 30)
        command = re.search(r"fieldlab (certs trust --data .+? [0-9a-f]{64})", source.status.error)
        assert command is not None
        done = fieldlab(*shlex.split(command[1]))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: source.status.connected, 30)

    trust()
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start(pki=str(tmp_path / "another"))
    wait_until(lambda: "another certificate" in source.status.error, 30)
    trust()
    days = source.status.counters
    assert 365 * 4 < days["certificate_days"] <= 365 * 5
    assert days["server_certificate_days"] > 30
    by_what = {one["what"]: one for one in listed(context.data)}
    assert set(by_what) == {"own", "server"}, "what is trusted is no longer refused"
    assert by_what["server"]["url"] == server.url
    assert by_what["server"]["security"] == "Aes256_Sha256_RsaPss/SignAndEncrypt"
    assert abs(by_what["server"]["days"] - days["server_certificate_days"]) <= 1


def test_certificates_by_hand(tmp_path: Path) -> None:
    data = str(tmp_path / "my data")
    made = fieldlab("certs", "create", "--data", data, "--name", "line-3", "--json")
    (own,) = json.loads(made.stdout)["certificates"]
    assert own["uri"].endswith(":fieldlab:line-3")
    again = fieldlab("certs", "create", "--data", data)
    assert (again.returncode, "renew" in again.stderr) == (1, True)
    unknown = fieldlab("certs", "trust", "--data", data, "ab" * 32)
    assert (unknown.returncode, "Refused lately: none" in unknown.stderr) == (1, True)
    (renewed,) = json.loads(fieldlab("certs", "renew", "--data", data, "--json").stdout)["certificates"]
    assert renewed["uri"] == own["uri"]
    assert renewed["fingerprint"] != own["fingerprint"]
    assert [one["what"] for one in listed(Path(data))] == ["own", "renewed"]
    assert fieldlab("certs", "renew", "--finish", "--data", data).returncode == 0
    assert [one["fingerprint"] for one in listed(Path(data))] == [renewed["fingerprint"]]
    for file in Path(data).rglob("*.key"):
        assert file.stat().st_mode & 0o077 == 0


def test_the_old_certificate_serves_until_the_new_one_is_trusted(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any
) -> None:
    folder = context.data / "certificates"
    old = load_identity(folder, "line-3")
    server = interop(variables={"a": {"type": "Double", "value": 1}}, accept=False)
    source = run_source(table(server, ["a"], security="best"), sink)
    wait_until(lambda: "trust" in source.status.error)
    pki = Path(server.options["pki"])

    def take(fingerprint: str) -> None:
        """What an operator does at the server: move a refused certificate to the trusted ones."""
        for file in (pki / "rejected").glob("*"):
            der = x509.load_pem_x509_certificate(file.read_bytes())
            if der.fingerprint(hashes.SHA256()).hex() == fingerprint:
                file.replace(pki / "trusted" / "certs" / file.name)
                return

    def connected_after_trust() -> Any:
        take(old.fingerprint)
        return source.status.connected

    wait_until(connected_after_trust, 60)
    new = certificates.renew_identity(folder, "line-3")
    server.kill()
    wait_until(lambda: not source.status.connected)
    server.start()
    wait_until(lambda: source.status.connected, 60, what="the old one, as the new one is refused")
    assert load_identity(folder, "line-3", server.url).fingerprint == old.fingerprint
    assert load_identity(folder, "line-3", "opc.tcp://another:1").fingerprint == new.fingerprint


def test_a_renewal_cut_short_and_an_old_one_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_identity(tmp_path, "x")
    new = certificates.renew_identity(tmp_path, "x")
    (tmp_path / "own" / "next.key").replace(tmp_path / "own" / "client.key")
    assert load_identity(tmp_path, "x").fingerprint == new.fingerprint
    assert not (tmp_path / "own" / "next.der").exists()
    newer = certificates.renew_identity(tmp_path, "x")
    monkeypatch.setattr(certificates, "days_left", lambda _: -1)
    assert load_identity(tmp_path, "x", "opc.tcp://h:1").fingerprint == newer.fingerprint
    assert not (tmp_path / "own" / "next.der").exists(), "the old one has ended: the new one stands alone"
