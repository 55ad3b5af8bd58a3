"""`fieldlab deadletter` beside a real agent: poison is listed, sent again after a repair, or dropped."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import paho.mqtt.publish as publish
import pytest

from fieldlab.cli.common import ask_agent
from fieldlab.errors import RefusedError


class Server(ThreadingHTTPServer):
    """`/api/v2/write` that refuses every request with a line of a poisoned signal, until it is repaired."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repaired = False
        self.kept: set[bytes] = set()


class _Handler(BaseHTTPRequestHandler):
    wbufsize = -1

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        poisoned = [line for line in lines if b"signal=poison" in line and line.startswith(b"telemetry")]
        if poisoned and not server.repaired:
            body = b'{"code":"invalid","message":"partial write: field type conflict"}'
            self.send_response(400)
        else:
            server.kept.update(line for line in lines if line.startswith(b"telemetry"))
            body = b""
            self.send_response(204)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def deadletter(agent: Any, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "fieldlab.cli", "deadletter", *arguments, "--config", str(agent.config), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_poison_is_set_aside_and_sent_again_after_a_repair(
    mosquitto: Callable[..., Any], agent: Callable[..., Any], server: Server, wait_until: Callable[..., Any]
) -> None:
    broker = mosquitto()
    process = agent(
        f'[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:{server.server_address[1]}"\nbucket = "b"\norg = "o"\n'
        f'[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        f'password_file = "{broker.password_file}"\ntopics = ["fieldlab/#"]\n'
    )
    process.start()
    messages: list[Any] = [
        (
            f"fieldlab/drachten/shavers/3/cnc-07/{'poison' if n % 5 == 0 else 'load'}",
            f'{{"value": {n}, "ts": {1763900000 + n}}}',
            1,
            False,
        )
        for n in range(50)
    ]
    messages.append(("fieldlab/drachten/shavers/3/cnc-07/load", "this is no JSON", 1, False))
    publish.multiple(messages, "127.0.0.1", broker.port, auth={"username": broker.user, "password": broker.password})
    wait_until(lambda: len(server.kept) == 40, 60.0, "the forty good readings are stored")
    letters = wait_until(
        lambda: (
            (found := deadletter(process, "list")["deadletters"]) and len({d["store"] for d in found}) == 2 and found
        ),
        60.0,
        "letters of the store and of the source",
    )
    of_store = [d for d in letters if d["store"] == "influxdb"]
    assert set(letters[0]) == {"id", "store", "machine", "signal", "readings", "reason", "first", "last"}
    assert sum(d["readings"] for d in of_store) == 10
    assert {d["signal"] for d in of_store} == {"poison"}
    assert all("field type conflict" in d["reason"] for d in of_store)
    ledger = process.status()["ledger"]
    assert (ledger["committed"], ledger["stored"], ledger["dead"]) == (50, 40, 10)

    with pytest.raises(RefusedError, match="404"):
        ask_agent(process.data, "/deadletters/burn", "POST")
    with pytest.raises(RefusedError, match="400"):
        ask_agent(process.data, "/deadletters/drop?id=all", "POST")

    still = deadletter(process, "replay", "--store", "influxdb", code=1)
    assert (still["replayed"], still["refused"]) == (0, 10)
    server.repaired = True
    done = deadletter(process, "replay", "--store", "influxdb")
    assert (done["replayed"], done["refused"], done["kept"]) == (10, 0, {})
    assert len(server.kept) == 50
    ledger = process.status()["ledger"]
    assert (ledger["committed"], ledger["stored"], ledger["dead"]) == (50, 50, 0)

    (left,) = deadletter(process, "list")["deadletters"]
    assert left["store"] == "mqtt-0"
    kept = deadletter(process, "replay", "--all", code=1)["kept"]
    assert "no store of this agent" in kept[str(left["id"])]
    assert process.stop() == 0
    assert deadletter(process, "drop", str(left["id"]))["dropped"] == 1
    assert deadletter(process, "list") == {"deadletters": []}
