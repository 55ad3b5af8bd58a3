"""`fieldlab discover mqtt://…`: what it prints runs as it is, and the broker's sessions are left alone."""

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

MESSAGES = {
    "fieldlab/drachten/shavers/3/cnc-07/diameter": '{"value": 25.01, "ts": 1763900000.123}',
    "fieldlab/drachten/shavers/3/cnc-07/part_id": '{"value": "P-1", "ts": 1763900000.123}',
    "fieldlab/drachten/shavers/3/cnc-07/state": '{"value": "running", "ts": 1763900000.123, "status": 0}',
    "fieldlab/drachten/shavers/3/cnc-07/_finding": '{"state": "raised"}',
    "plant/hall-2/oven/temperature": "181.5",
    "plant/hall-2/press/force": "12.25",
    "plant/hall-2/press/on": "true",
    "plant/hall-2/press/many": '{"a": 1.5, "b": 2.5}',
    "plant/hall-2/press/log": "started",
    "boxes/b1/meter": '{"val": 3.5, "timestamp": "2026-11-23T20:00:00Z", "unit": "bar"}',
}


@pytest.fixture
def publishing(mosquitto: Any) -> Iterator[Any]:
    """A broker on which MESSAGES are published again and again."""
    broker = mosquitto()
    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(broker.user, broker.password)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.1):
            for topic, payload in MESSAGES.items():
                client.publish(topic, payload)

    thread = threading.Thread(target=publish)
    thread.start()
    yield broker
    ended.set()
    thread.join()
    client.disconnect()
    client.loop_stop()


def fieldlab(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=90,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, check=False,
    )  # fmt: skip


def test_what_is_printed_runs(publishing: Any, tmp_path: Path, wait_until: Any, free_port: Any) -> None:
    user = ["--username", publishing.user, "--password-file", str(publishing.password_file)]
    done = fieldlab("discover", publishing.url, *user, "--seconds", "1.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = tomllib.loads(done.stdout)
    sources = {source["topic"]: source for source in found["source"] if source["format"] != "plain"}
    (text,) = (source for source in found["source"] if source["format"] == "plain")
    assert text["topics"] == ["plant/hall-2/+/log"]
    assert set(sources) == {
        "fieldlab/{site}/{area}/{line}/{machine}/{signal}",
        "plant/hall-2/{machine}/{signal}",
        "boxes/{machine}/{signal}",
        "plant/hall-2/{machine}/many",
    }
    native = sources["fieldlab/{site}/{area}/{line}/{machine}/{signal}"]
    assert native["topics"] == ["fieldlab/+/+/+/+/+"]
    plain = sources["plant/hall-2/{machine}/{signal}"]
    assert plain["value"] == ""
    assert plain["topics"] == [f"plant/hall-2/+/{each}" for each in ("force", "on", "temperature")]
    assert (sources["boxes/{machine}/{signal}"]["value"], sources["boxes/{machine}/{signal}"]["time"]) == (
        "val",
        "timestamp",
    )
    assert sources["plant/hall-2/{machine}/many"]["values"] == {"a": "a", "b": "b"}
    assert done.stdout.count("# not read:") == 1, "what starts with _"
    assert found["part"] == [{"machine": "cnc-07", "id": "part_id"}]
    assert ["cnc-07/diameter"] in [chart["signals"] for chart in found["chart"]]
    kinds = {rule["match"]: rule.get("kind") for rule in found["signal"]}
    assert {"match": "b1/meter", "unit": "bar"} in found["signal"]
    assert kinds["cnc-07/part_id"] == "text"
    assert kinds["cnc-07/state"] == kinds["press/on"] == "state"
    http = f'http = "127.0.0.1:{free_port()}"\n\n[place]'
    (tmp_path / "line.toml").write_text(done.stdout.replace("[place]", http, 1))
    checked = fieldlab("check", "line.toml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "fieldlab.cli", "agent", "line.toml"], cwd=tmp_path, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip
    try:

        def ledger() -> Any:
            asked = fieldlab("status", "--json", "--config", "line.toml", cwd=tmp_path)
            return json.loads(asked.stdout) if asked.returncode == 0 else None

        running = wait_until(
            lambda: (s := ledger()) and sum(each["signals"] for each in s["sources"]) == 10 and s,
            60,
            what="every signal",
        )
        assert all(each["counters"].get("dead", 0) == 0 for each in running["sources"])
    finally:
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0


def test_nothing_and_nobody(mosquitto: Any, tmp_path: Path, free_port: Any) -> None:
    broker = mosquitto(anonymous=True)
    silent = fieldlab("discover", broker.url, "--seconds", "0.2", "--json", cwd=tmp_path)
    assert silent.returncode == 1
    assert json.loads(silent.stdout)["ok"] is False
    gone = fieldlab("discover", f"mqtt://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert gone.returncode == 1
    assert fieldlab("discover", broker.url, "--topics", "a/#/b", cwd=tmp_path).returncode == 2
