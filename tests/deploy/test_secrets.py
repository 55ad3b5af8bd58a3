"""The script of the secrets: what it makes, that it says nothing, and that what is there stays."""

import re
import stat
from pathlib import Path

import pytest
from cryptography import x509

from deploy import secrets

CNC, ROBOT = "drachten/shavers/3/cnc-07", "drachten/shavers/3/robot-03"


def every_file(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_everything_is_for_its_owner_alone_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert secrets.main([str(tmp_path), "--machine", CNC]) == 0
    said = capsys.readouterr().out
    files = every_file(tmp_path)
    words = [v.decode().strip() for k, v in files.items() if re.search("password$|token$|cnc-07$", k)]
    assert len(words) >= 9
    assert all(len(word) >= 32 and word not in said for word in words)
    agents = {files[f"agent/{name}"] for name in ("mqtt-password", "influx-password", "http-token")}
    assert len(agents) == 3
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*") if p.is_file()} == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o700}
    assert [k for k in files if k.endswith("ca.key")] == ["ca/ca.key"]


def test_a_second_run_changes_nothing_and_a_machine_can_be_added(tmp_path: Path) -> None:
    secrets.make(tmp_path, ["localhost"], [CNC], own=False)
    before = every_file(tmp_path)
    assert secrets.make(tmp_path, ["localhost"], [], own=False) == []
    assert every_file(tmp_path) == before
    secrets.make(tmp_path, ["localhost"], [ROBOT], own=False)
    after = every_file(tmp_path)
    changed = {k for k in after if after[k] != before.get(k)}
    assert changed == {"machines/" + ROBOT.replace("/", "__"), "mosquitto/passwords"}
    lines = before["mosquitto/passwords"].splitlines()
    assert after["mosquitto/passwords"].splitlines()[: len(lines)] == lines


def test_a_new_name_of_the_broker_is_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    secrets.make(tmp_path, ["localhost"], [], own=False)
    before = every_file(tmp_path)
    secrets.make(tmp_path, ["localhost", "10.0.7.12"], [], own=False)
    after = every_file(tmp_path)
    assert after["mosquitto/ca.crt"] == before["mosquitto/ca.crt"]
    assert after["mosquitto/server.crt"] != before["mosquitto/server.crt"]
    certificate = x509.load_pem_x509_certificate(after["mosquitto/server.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == ["localhost", "10.0.7.12"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(after["agent/ca.crt"]))


@pytest.mark.parametrize("name", ["cnc-07", "a/b/c/d/e", "a/b/c/+", "a/b/c/d:e", "a/b/c/d\ne", "a/b//d"])
def test_what_is_no_machine_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert secrets.main([str(tmp_path), "--machine", name]) == 2
    assert "is no machine" in capsys.readouterr().err
    assert every_file(tmp_path) == {}
