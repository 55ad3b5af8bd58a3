"""`fieldlab check`: beside a running agent it takes nothing, and it says what would not work."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = 1_763_900_000_000_000_000


def message(number: int) -> tuple[str, str]:
    time = START + number * 1_000_000
    return f"fieldlab/drachten/shavers/3/robot-{number % 4}/load", json.dumps({"value": number, "ts": time})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_beside_a_running_agent_it_takes_nothing(
    mosquitto: Callable[..., Any],
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    rules = '[[signal]]\nmatch = "robot-*/load"\nunit = "%"\n'
    process = agent(mqtt_source(broker) + server.source(["load"]) + rules).start()
    wait_until(lambda: process.status()["sources"][1]["signals"] == 1)
    publisher = publish(broker)
    before = files(process.folder)
    ended = threading.Event()
    sent = 0

    def go_on() -> None:
        nonlocal sent
        while not ended.wait(0.002):
            publisher.send([message(sent)], wait=False)
            sent += 1

    traffic = threading.Thread(target=go_on)
    traffic.start()
    try:
        server.ask("burst", names=["load"], rounds=50, every=2, type="Double")
        text = fieldlab("check", process.config)
        done = fieldlab("check", process.config, "--json")
        server.ask("burst", names=["load"], rounds=50, every=2, type="Double")
    finally:
        ended.set()
        traffic.join()
    assert (done.code, text.code) == (0, 0), (done.out, text.out)
    found = json.loads(done.out)
    assert set(found) == {"ok", "lines"}
    assert found["ok"] is True
    assert {line["level"] for line in found["lines"]} <= {"ok", "warn"}
    assert all(line["subject"] and line["text"] for line in found["lines"])
    assert "checked, all would work" in text.out
    expected = sent + len(server.produced())
    wait_until(lambda: process.ledger()["committed"] == expected, 30.0, f"{expected} committed: {process.ledger()}")
    first, second = process.status()["sources"]
    assert (first["counters"]["connects"], first["counters"]["redelivered"]) == (1, 0)
    assert second["counters"]["reconnects"] == 0
    ledger = process.ledger()
    assert ledger["bad"] == ledger["duplicate"] == ledger["lost"] == 0
    new = {name for name in files(process.folder) - before if not name.startswith("data/journal.db")}
    assert new <= {"data/telemetry.duckdb.wal"}, new
    assert process.stop() == 0


def test_what_would_not_work_is_named(
    opcua_server: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    fieldlab: Callable[..., Any],
    free_port: Callable[[], int],
) -> None:
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    absent = free_port()
    process = agent(
        server.source(["load", "lod"])
        + f'[[source]]\nkind = "opcua"\nmachine = "m"\nurl = "opc.tcp://127.0.0.1:{absent}"\nsecurity = "none"\n'
        '[[source.signal]]\nname = "a"\nnode = "nsu=urn:x;s=a"\n'
        f'[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:{absent}"\n'
        f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "nobody_made_it"\n'
        f'[[store]]\nkind = "influxdb"\nname = "away"\nurl = "http://127.0.0.1:{absent}"\n'
    )
    done = fieldlab("check", process.config, "--json")
    assert done.code == 1, done
    found = json.loads(done.out)
    assert found["ok"] is False
    failed = {line["subject"]: line["text"] for line in found["lines"] if line["level"] == "fail"}
    assert set(failed) == {"opcua-0 cnc-07/lod", "opcua-1", "mqtt-2", "influxdb", "away"}
    assert "BadNodeIdUnknown" in failed["opcua-0 cnc-07/lod"]
    assert "nobody_made_it" in failed["influxdb"]
    assert all(str(absent) in failed[name] for name in ("opcua-1", "mqtt-2", "away")), failed
    assert any(line["level"] == "ok" and line["subject"] == "opcua-0 cnc-07/load" for line in found["lines"])
    assert not process.data.exists(), "check leaves nothing behind"


def test_a_topic_without_traffic_is_a_warning(
    mosquitto: Callable[..., Any], agent: Callable[..., Any], mqtt_source: Callable[..., str], fieldlab: Any
) -> None:
    process = agent(mqtt_source(mosquitto()))
    done = fieldlab("check", process.config, "--json")
    found = json.loads(done.out)
    assert (done.code, found["ok"]) == (0, True), done
    assert any(line["level"] == "warn" and "fieldlab/#" in line["subject"] for line in found["lines"])
    assert not process.data.exists()
