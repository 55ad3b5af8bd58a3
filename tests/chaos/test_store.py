"""A store in every trouble there is, one after the other, behind a whole agent: in the end the counts are equal."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

START = 1_763_900_000_000_000_000
TIMEOUT = 1.0
TOPIC = "fieldlab/drachten/shavers/3/cnc-07/load"


class Server(ThreadingHTTPServer):
    """Takes /api/v2/write; the next request that carries readings meets `trouble`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.trouble = ""
        self.met: list[str] = []
        self.kept: set[bytes] = set()
        self.poison: set[bytes] = set()
        self.late = threading.Event()
        self.lock = threading.Lock()

    def take(self) -> str:
        with self.lock:
            trouble, self.trouble = self.trouble, ""
            self.met += [trouble] if trouble else []
            return trouble


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [line for line in body.splitlines() if line.startswith(b"telemetry")]
        trouble = server.take() if lines else ""
        if trouble == "closed in the middle of a body":
            server.kept.update(lines)  # it had it all; who asked cannot know
            self.wfile.write(b"HTTP/1.1 204 No Content\r\nContent-Le")
            self.wfile.flush()
            self.close_connection = True
            return
        if trouble == "a dropped connection":
            self.close_connection = True
            return
        if trouble in ("204 after a time-out", "slow"):
            server.kept.update(lines)
            server.late.wait(TIMEOUT * (3 if trouble.startswith("204") else 0.7))
            self.answer(204)
            return
        status, _, more = trouble.partition(" ")
        if status == "400" or any(line in server.poison for line in lines):
            if status == "400":
                server.poison.add(lines[len(lines) // 2])
            server.kept.update(line for line in lines if line not in server.poison)
            self.answer(400, b'{"code":"invalid","message":"partial write: field type conflict dropped=1"}')
            return
        if trouble:
            self.answer(int(status), b'{"code":"x","message":"of the test"}', more)
            return
        server.kept.update(lines)
        self.answer(204)

    def answer(self, status: int, body: bytes = b"", retry_after: str = "") -> None:
        self.send_response(status)
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


TROUBLES = [
    "400",
    "401",
    "403",
    "404",
    "413",
    "422",
    "429 1",
    "500",
    "503 1",
    "closed in the middle of a body",
    "a dropped connection",
    "slow",
    "204 after a time-out",
]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.late.set()
    made.shutdown()
    thread.join()
    made.server_close()


def test_every_trouble_of_a_store_in_turn_loses_and_doubles_nothing(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    server: Server,
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker = mosquitto()
    store = (
        f'[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:{server.server_address[1]}"\nbucket = "b"\n'
        f'org = "o"\ntimeout = "{TIMEOUT}s"\n'
    )
    process = agent('[[store]]\nkind = "embedded"\n' + store + mqtt_source(broker)).start()
    publisher = publish(broker)
    sent = 0
    for trouble in [*TROUBLES, *reversed(TROUBLES)]:
        with server.lock:
            server.trouble = trouble
        publisher.send([(TOPIC, json.dumps({"value": n, "ts": START + n * 10**6})) for n in range(sent, sent + 40)])
        sent += 40
        wait_until(lambda: not server.trouble, 20.0, f"the store met {trouble}")
        wait_until(lambda sent=sent: accounted(process, sent), 30.0, f"all is stored or dead after {trouble}")
    ledger = adds_up(process)
    status = {s["name"]: s for s in process.status()["ledger_stores"]}["influxdb"]
    letters = process.status()["journal"]["letters"]
    poison = {line for line in server.poison if line not in server.kept}
    tell(
        troubles=len(server.met),
        sent=sent,
        committed=ledger["committed"],
        stored=len(server.kept),
        dead=status["dead"],
        lost=sent - len(server.kept) - status["dead"],
    )
    assert server.met == [*TROUBLES, *reversed(TROUBLES)]
    assert status["dead"] == len(poison) == letters
    assert status["stored"] == len(server.kept) == sent - len(poison)
    assert ledger["committed"] == ledger["stored"] == sent, "the other store never noticed"
    assert len(poison) < 10, "only lines at fault are dead, and what a 413 or 422 refused alone"
    assert process.stop() == 0
    assert process.troubles == []


def accounted(process: Any, sent: int) -> bool:
    status = {s["name"]: s for s in process.status()["ledger_stores"]}["influxdb"]
    return bool(status["stored"] + status["dead"] == sent)


def test_an_hour_of_a_hundred_signals_behind_is_caught_up(
    mosquitto: Callable[..., Any],
    influxd_factory: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker, influxd = mosquitto(), influxd_factory()
    database = influxd.create_database()
    influxd.stop()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker)).start()
    publisher = publish(broker)
    signals, seconds, block = 100, 3600, 360
    sent = signals * seconds
    for start in range(0, seconds, block):
        values = list(range(start, start + block))
        times = [START + n * 10**9 for n in values]
        payload = json.dumps({"value": values, "ts": times})
        publisher.send([(f"fieldlab/drachten/shavers/3/robot-{s}/load", payload) for s in range(signals)])
    wait_until(lambda: process.consumer("influxdb")["lag_readings"] == sent, 30.0, "an hour waits in the journal")
    process.kill()  # and a kill on top
    process.start()
    influxd.start()
    wait_until(lambda: process.ledger()["stored"] == sent, 90.0, "all of it is stored")
    rows = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)
    ledger = adds_up(process)
    tell(sent=sent, stored=rows[0]["count"], dead=ledger["dead"], lost=sent - rows[0]["count"])
    assert (rows[0]["count"], rows[0]["sum"]) == (sent, signals * sum(range(seconds)))
    assert ledger["committed"] == sent
    assert process.stop() == 0


def test_a_kill_between_sending_a_letter_and_counting_it_counts_it_once(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
    server: Server,
    faults: Any,
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker = mosquitto()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    process = agent(f'[[store]]\nkind = "influxdb"\nurl = "{url}"\nbucket = "b"\norg = "o"\n' + mqtt_source(broker))
    places = [
        "ingest.stores.influxdb.store:InfluxStore.resend after 1",  # sent, and nothing written
        "ingest.forwarder:Counts.revive after 1",  # counted in memory alone
    ]
    publisher = publish(broker)
    process.start()
    for start in range(0, 3 * 50, 50):
        server.trouble = "400"
        publisher.send([(TOPIC, json.dumps({"value": n, "ts": START + n * 10**6})) for n in range(start, start + 50)])
        wait_until(lambda start=start: accounted(process, start + 50), 30.0)
    dead = process.ledger()["dead"]
    assert dead > 0
    for place in places:
        process.kill()
        faults.kill_at(place)
        process.start()
        with server.lock:
            server.poison.clear()  # repaired
        fieldlab("deadletter", "replay", "--all", "--config", process.config, "--json")
        wait_until(lambda: process.process.poll() is not None, 20.0, f"it killed itself: {place}")
        process.process = None
        faults.kill_at()
        process.start()
        assert process.ledger()["dead"] == dead, "not counted before it is removed"
    done = json.loads(fieldlab("deadletter", "replay", "--all", "--config", process.config, "--json").out)
    assert (done["replayed"], done["refused"], done["kept"]) == (dead, 0, {})
    ledger = adds_up(process)
    tell(sent=150, committed=ledger["committed"], stored=len(server.kept), dead=ledger["dead"], lost=0)
    assert (ledger["stored"], ledger["dead"], len(server.kept)) == (150, 0, 150)
    assert process.status()["journal"]["letters"] == 0
    assert process.stop() == 0
