"""A store that is away, and one that refuses: nothing lost, and the ledger adds up."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

START = 1_763_900_000_000_000_000


def readings(start: int, count: int, signal: str = "load") -> list[tuple[str, str]]:
    return [
        (
            f"fieldlab/drachten/shavers/3/robot-{i % 4}/{signal}",
            json.dumps({"value": float(i), "ts": START + i * 1_000_000}),
        )
        for i in range(start, start + count)
    ]


def test_readings_wait_while_the_store_is_away(
    mosquitto: Callable[..., Any],
    influxd_factory: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    broker, influxd = mosquitto(), influxd_factory()
    database = influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent('[[store]]\nkind = "embedded"\n' + store + mqtt_source(broker)).start()
    publisher = publish(broker)

    def stored() -> int:
        rows = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)
        return int(rows[0]["count"]) if rows else 0

    publisher.send(readings(0, 1_000))
    wait_until(lambda: stored() == 1_000, 20.0, "the first readings are stored")
    influxd.stop()
    publisher.send(readings(1_000, 1_000))
    wait_until(lambda: process.consumer("influxdb")["lag_readings"] == 1_000, 20.0, "the lag is shown")
    wait_until(lambda: process.consumer("influxdb")["error"], 20.0, "and why")
    assert influxd.url.removeprefix("http://") in process.consumer("influxdb")["error"]
    wait_until(lambda: process.consumer("embedded")["lag_readings"] == 0, 20.0, "the other store goes on")
    done = fieldlab("status", "--config", process.config)
    assert done.code == 1
    assert "consumer influxdb: 1000 readings" in done.out
    assert process.stop() == 0, "a dead store does not stop the agent from ending"
    process.start()
    publisher.send(readings(2_000, 1_000))
    wait_until(lambda: process.consumer("influxdb")["lag_readings"] == 2_000, 20.0, "the lag outlives the agent")
    influxd.start()
    wait_until(lambda: stored() == 3_000, 60.0, "everything is stored")
    wait_until(lambda: process.status()["ready"], 20.0)
    assert influxd.query("SELECT sum(value) FROM telemetry", database)[0]["sum"] == sum(range(3_000))
    ledger = process.ledger()
    assert ledger["committed"] == ledger["stored"] == 3_000
    assert process.stop() == 0
    assert process.troubles == []


class Picky:
    """A /api/v2/write that refuses any request with a line of the signal `poison`, naming no line."""

    def __init__(self) -> None:
        self.kept: set[bytes] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
                poison = any(b"signal=poison" in line and line.startswith(b"telemetry") for line in lines)
                if not poison:
                    outer.kept.update(lines)
                body = b'{"code": "invalid", "message": "field type conflict"}' if poison else b""
                self.send_response(400 if poison else 204)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def picky() -> Iterator[Picky]:
    made = Picky()
    yield made
    made.close()


def test_poison_is_set_aside_and_the_rest_is_stored(
    mosquitto: Callable[..., Any],
    picky: Picky,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    store = f'[[store]]\nkind = "influxdb"\nurl = "{picky.url}"\nbucket = "b"\norg = "o"\n'
    process = agent(store + mqtt_source(broker)).start()
    publisher = publish(broker)
    for start in (0, 100, 200):
        publisher.send(readings(start, 100) + readings(start, 7, "poison"))
    publisher.send([("fieldlab/drachten/shavers/3/robot-1/load", "no JSON")])
    wait_until(lambda: process.ledger()["committed"] == 321, 20.0, "everything is committed")
    wait_until(lambda: process.consumer("influxdb")["lag_records"] == 0, 20.0, "everything is dealt with")
    ledger = process.ledger()
    assert (ledger["committed"], ledger["stored"], ledger["dead"]) == (321, 300, 21)
    assert ledger["lost"] == 0
    dead = {row["signal"]: row["dead"] for row in process.status()["ledger_signals"] if row["dead"]}
    assert dead == {"robot-0/poison": 6, "robot-1/poison": 6, "robot-2/poison": 6, "robot-3/poison": 3}
    telemetry = [line for line in picky.kept if line.startswith(b"telemetry")]
    assert len(telemetry) == 300
    assert process.status()["set_aside_input"] == 1
    process.kill()
    process.start()
    after = process.ledger()
    assert (after["committed"], after["stored"], after["dead"]) == (321, 300, 21), "the counts outlive a crash"
    assert process.stop() == 0
    refusals = [e for e in process.log if e["event"] == "store_refused_readings"]
    assert sum(e["readings"] for e in refusals) == 21
    assert all("field type conflict" in e["reason"] for e in refusals)
    assert process.troubles == []
