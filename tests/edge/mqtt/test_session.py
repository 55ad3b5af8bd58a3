"""What outlives the process about a session at the broker."""

from pathlib import Path
from typing import Any

import structlog

from edge.sources.mqtt.session import SessionFile


def load(path: Path, client: str = "line-3-0") -> SessionFile:
    return SessionFile(path, "mqtt://127.0.0.1:1883", client)


def test_identity_is_kept_with_the_session(tmp_path: Any) -> None:
    path = tmp_path / "data" / "mqtt-0.session"
    first = load(path)
    assert first.connected(present=False, filters=("a", "b")) == ()
    again = load(path)
    assert again.connected(present=True, filters=("b", "c")) == ("a",)
    assert again.now.id == first.now.id
    assert load(path).connected(present=True, filters=("b", "c")) == ("a",), "not yet unsubscribed: remembered"
    again.unsubscribed(("a",))
    assert load(path).connected(present=True, filters=("b", "c")) == ()


def test_another_session_is_another_identity(tmp_path: Any) -> None:
    path = tmp_path / "mqtt-0.session"
    first = load(path)
    first.connected(present=False, filters=("a",))
    again = load(path)
    assert again.connected(present=False, filters=("b",)) == ()
    assert again.now.id != first.now.id
    other = load(path, "line-4-0")
    assert other.connected(present=True, filters=("b",)) == ()
    assert other.now.id not in ("", again.now.id)


def test_a_damaged_or_impossible_file_only_helps_less(tmp_path: Any) -> None:
    path = tmp_path / "mqtt-0.session"
    path.write_bytes(b"\x00{")
    with structlog.testing.capture_logs() as logs:
        session = load(path)
        assert session.connected(present=True, filters=("a",)) == ()
    assert session.now.id
    assert [log["event"] for log in logs] == ["mqtt_session_file_unreadable"]
    (tmp_path / "file").write_text("")
    with structlog.testing.capture_logs() as logs:
        load(tmp_path / "file" / "mqtt-0.session").connected(present=False, filters=())
    assert logs[-1]["event"] == "mqtt_session_file_not_written"
