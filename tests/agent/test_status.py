"""What an agent tells of itself: status, health, metrics, and to whom."""

import json
import os
import stat
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STATUS = {
    "agent", "time", "uptime", "ready", "memory_bytes", "sources", "consumers", "ledger", "ledger_signals",
    "set_aside_input", "journal",
}  # fmt: skip
COUNTS = {"received", "committed", "stored", "bad", "overflow", "duplicate", "rejected", "dead", "lost"}


def get(url: str, host: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with DIRECT.open(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def address_of(process: Any) -> str:
    """`[agent] http`."""
    table = tomllib.loads(process.config.read_text("utf-8"))
    return str(table["agent"]["http"])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def running(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> Any:
    """An agent with HTTP that has stored 100 readings."""
    broker = mosquitto()
    before = os.umask(0o022)  # whatever a person's shell has
    try:
        process = agent(mqtt_source(broker), http=f"127.0.0.1:{free_port()}").start()
    finally:
        os.umask(before)
    stream = [("fieldlab/drachten/shavers/3/m/load", f'{{"value": {i}, "ts": {1763900000 + i}}}') for i in range(100)]
    publish(broker).send(stream)
    wait_until(lambda: process.ledger()["stored"] == 100 and process.settled(), 20.0, "100 stored")
    return process


def test_status(running: Any, fieldlab: Callable[..., Any]) -> None:
    done = fieldlab("status", "--json", FIELDLAB_CONFIG=str(running.config))
    assert (done.code, done.err) == (0, "")
    status = json.loads(done.out)
    assert set(status) >= STATUS
    assert set(status["ledger"]) >= COUNTS
    assert status["ready"] is True
    assert status["ledger"]["committed"] == status["ledger"]["stored"] == 100
    assert status["ledger"]["lost"] == 0
    assert status["journal"]["set_aside"] == 0
    assert status["journal"]["bytes"] <= status["journal"]["max_bytes"]
    assert [s["name"] for s in status["sources"]] == ["mqtt-0"]
    assert {c["name"] for c in status["consumers"]} >= {"embedded", "analytics"}
    (signal,) = status["ledger_signals"]
    assert (signal["path"], signal["committed"], signal["guarantee"]) == (
        "drachten/shavers/3/m/load", 100, "end-to-end",
    )  # fmt: skip
    assert status["memory_bytes"] > 1e6
    text = fieldlab("status", "--config", running.config)
    assert text.code == 0
    said = ("agent test: ready", "mqtt-0", "connected", "embedded", "committed 100", "stored 100")
    for words in (*said, "end-to-end: 1 signal, 0 lost"):
        assert words in text.out, text.out


def test_files_are_private(running: Any) -> None:
    assert mode(running.data) == 0o700
    for name in ("agent.sock", "journal.db", "lock"):
        assert mode(running.data / name) & 0o077 == 0, name
    for path in running.data.rglob("*"):
        assert mode(path) & 0o077 == 0, path
    assert running.stop() == 0
    assert not (running.data / "agent.sock").exists()


def test_health_and_metrics(running: Any) -> None:
    base = f"http://{address_of(running)}"
    assert get(f"{base}/healthz") == (200, "ok\n")
    assert get(f"{base}/readyz") == (200, "ready\n")
    code, text = get(f"{base}/metrics")
    assert code == 200
    families = {f.name: f for f in text_string_to_metric_families(text)}
    readings = {s.labels["outcome"]: s.value for s in families["fieldlab_readings"].samples}
    assert readings["committed"] == readings["stored"] == 100
    assert families["fieldlab_source_connected"].samples[0].labels == {"source": "mqtt-0"}
    assert families["fieldlab_source_connected"].samples[0].value == 1
    lag = {s.labels["consumer"]: s.value for s in families["fieldlab_consumer_lag_readings"].samples}
    assert lag["embedded"] == 0
    assert all(family.documentation for family in families.values())

    code, text = get(f"{base}/query/telemetry?signal=drachten/shavers/3/m/load")
    assert json.loads(text)["value"] == [float(i) for i in range(100)]
    assert get(f"{base}/query/telemetry")[0] == 400
    assert get(f"{base}/query/telemetry?signal=x")[0] == 400
    assert get(f"{base}/query/counts?start=soon")[0] == 400
    assert get(f"{base}/nothing")[0] == 404


def test_other_names_for_loopback_are_refused(running: Any) -> None:
    """A web page of elsewhere may make its name point here; a browser then sends that name."""
    address = address_of(running)
    port = address.rpartition(":")[2]
    for path in ("status", "metrics", "query/counts", "healthz"):
        assert get(f"http://{address}/{path}", host=f"evil.example:{port}")[0] == 400, path
    for name in ("localhost", "127.0.0.1", "[::1]"):
        assert get(f"http://{address}/healthz", host=f"{name}:{port}")[0] == 200, name


def test_a_broker_that_goes_away_shows(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    mqtt_source: Callable[..., str],
    free_port: Callable[[], int],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker, address = mosquitto(), f"127.0.0.1:{free_port()}"
    process = agent(mqtt_source(broker), http=address).start()
    broker.stop()
    wait_until(lambda: not process.status()["ready"], 20.0, "it notices")
    assert get(f"http://{address}/readyz") == (503, "not ready\n")
    assert get(f"http://{address}/healthz")[0] == 200
    assert fieldlab("status", "--config", process.config, "--json").code == 1
    broker.start()
    wait_until(lambda: process.status()["ready"], 30.0, "it comes back")
    assert get(f"http://{address}/readyz")[0] == 200
    assert process.stop() == 0


def test_late_readings_are_stored_and_counted_as_not_judged(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> None:
    broker, address = mosquitto(), f"127.0.0.1:{free_port()}"
    chart = '[[chart]]\nname = "load"\nkind = "individuals"\nsignals = ["*/load"]\nper = "reading"\nbaseline = 30\n'
    process = agent('[[store]]\nkind = "embedded"\n' + mqtt_source(broker) + chart, http=address).start()
    publisher = publish(broker)
    for second in (0, 100, 200, 10, 20):
        payload = json.dumps({"value": 1.0, "ts": 1_763_900_000 + second})
        publisher.send([("fieldlab/drachten/shavers/3/cnc-07/load", payload)])
        wait_until(process.settled, 20.0)
    wait_until(lambda: process.status()["not_judged"]["late"] == 2, 20.0)
    wait_until(lambda: process.ledger()["stored"] == 5, 20.0)
    assert "stored, not judged: 2 late" in fieldlab("status", "--config", process.config).out
    assert 'fieldlab_not_judged_readings_total{reason="late"} 2.0' in get(f"http://{address}/metrics")[1]
    process.kill()
    process.start()
    assert process.status()["not_judged"]["late"] == 2, "it is part of what a crash does not change"
    assert process.stop() == 0
