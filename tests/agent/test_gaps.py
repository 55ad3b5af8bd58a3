"""Gaps of a real agent: killed, cut off from its broker, with a store that came late; what the ledger says of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

START = 1_763_900_000_000_000_000
PATH = "drachten/shavers/3/m/load"


def stream(start: int, count: int) -> list[tuple[str, str]]:
    return [
        (f"fieldlab/{PATH}", json.dumps({"value": float(i), "ts": START + i * 1_000_000}))
        for i in range(start, start + count)
    ]


def gaps(process: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = process.status()["gaps"]["newest"]
    return sorted(found, key=lambda gap: (gap["cause"], gap["start"]))


def report(fieldlab: Callable[..., Any], process: Any, *more: str) -> dict[str, Any]:
    done = fieldlab("report", "ledger", "--config", process.config, "--format", "json", *more)
    assert done.code == 0, (done.out, done.err)
    found: dict[str, Any] = json.loads(done.out)
    assert found["holds"] is True
    assert found["faults"] == []
    return found


@pytest.mark.parametrize("session", ["clean", "persistent"])
def test_kill_9_leaves_a_gap_that_says_what_is_known(
    session: str,
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    process = agent('[[store]]\nkind = "embedded"\n' + mqtt_source(broker, f'session = "{session}"\n')).start()
    publisher = publish(broker)
    publisher.send(stream(0, 50))
    wait_until(lambda: process.ledger()["stored"] == 50, 20.0)
    process.kill()
    publisher.send(stream(50, 50))
    stopped = report(fieldlab, process)
    assert stopped["totals"]["committed"] == 50, "the files alone say the same"
    assert stopped["gaps"] == [], "nobody has noticed it yet"
    process.start()
    publisher.send(stream(100, 50))
    kept = 150 if session == "persistent" else 100
    wait_until(lambda: process.ledger()["stored"] == kept, 20.0)
    (gap,) = gaps(process)
    assert gap["cause"] == "agent_down"
    assert (gap["path"], gap["source"], gap["start"]) == (PATH, "mqtt-0", START + 49 * 1_000_000)
    assert gap["end"] > gap["start"]
    assert gap["state"] == ("closed" if session == "persistent" else "unverifiable")
    found = report(fieldlab, process)
    (signal,) = found["signals"]
    assert signal["committed"] == signal["stores"][0]["stored"] == signal["in_store"] == kept
    if session == "persistent":
        assert (signal["guarantee"], signal["loss"]) == ("end-to-end", "0 lost")
    else:
        assert (signal["guarantee"], signal["loss"]) == (
            "from-receipt", "1 gap not closed, unverifiable before receipt",
        )  # fmt: skip
    assert [g["state"] for g in found["gaps"]] == [gap["state"]]
    text = fieldlab("status", "--config", process.config).out
    assert ("0 lost" in text) is (session == "persistent")
    assert "agent down" in text
    assert process.stop() == 0
    assert report(fieldlab, process)["gaps"] == found["gaps"], "the files alone say the same"
    assert process.troubles == []


def test_a_broker_that_goes_away_is_a_gap_in_every_store(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    database = influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + '[[store]]\nkind = "embedded"\n' + mqtt_source(broker)).start()
    publish(broker).send(stream(0, 50))
    wait_until(lambda: process.ledger()["stored"] == 50, 20.0)
    broker.stop()
    wait_until(lambda: gaps(process), 20.0, "the gap is noticed while it goes on")
    (gap,) = gaps(process)
    assert (gap["cause"], gap["state"], gap["end"]) == ("source_down", "open", 0)
    broker.start()
    wait_until(lambda: gaps(process)[0]["state"] != "open", 30.0, "the gap ends")
    (after,) = gaps(process)
    assert (after["id"], after["state"]) == (gap["id"], "closed")
    publish(broker).send(stream(50, 50))
    wait_until(lambda: process.ledger()["stored"] >= 101, 20.0, "also the point that says that the connection was lost")

    def newest() -> Any:
        rows = influxd.query('SELECT "state", "cause", "end", "id" FROM gap', database)
        return [(r["state"], r["cause"], r["end"], r["id"]) for r in rows]

    wait_until(lambda: newest() == [("closed", "source_down", after["end"], gap["id"])], 20.0, "one point, its newest")
    counted = influxd.query("SELECT count(value), count(status) FROM telemetry", database)[0]
    found = report(fieldlab, process)
    (signal,) = found["signals"]
    by_name = {store["name"]: store for store in signal["stores"]}
    assert set(by_name) == {"influxdb", "embedded"}
    assert by_name["influxdb"]["stored"] == signal["in_store"] == counted["count"] + counted["count_1"] == 101
    wait_until(lambda: report(fieldlab, process)["stores"][1]["stored"] == 101, 20.0)
    assert process.stop() == 0
    assert process.troubles == []


def test_a_store_that_comes_later_has_a_ledger_that_adds_up(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    process = agent('[[store]]\nkind = "embedded"\n' + mqtt_source(broker)).start()
    publish(broker).send(stream(0, 50))
    wait_until(lambda: process.ledger()["stored"] == 50, 20.0)
    assert process.stop() == 0
    database = influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process.configure('[[store]]\nkind = "embedded"\n' + store + mqtt_source(broker))
    process.start()
    publish(broker).send(stream(50, 50))
    wait_until(lambda: process.settled() and process.ledger()["stored"] == 100, 20.0)
    late = report(fieldlab, process)["stores"][1]
    assert late["name"] == "influxdb"
    assert late["before"] + late["stored"] == 100
    assert late["stored"] >= 50
    process.kill()
    process.start()
    assert report(fieldlab, process)["stores"][1]["before"] == late["before"]
    assert process.stop() == 0
