"""Secrets stay in their files: not in logs, errors, status, metrics, arguments. What we write is our user's alone."""

import base64
import contextlib
import io
import json
import stat
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from fieldlab.cli.common import log_to_stderr
from fieldlab.secrets import hide, remember


class Parrot:
    """An InfluxDB that refuses everything and repeats what it was sent, the Authorization header too."""

    def __init__(self, status: int) -> None:
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked += 1
                body = json.dumps({"message": f"no rights: {self.path} {dict(self.headers)}"}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815  a name that http.server asks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def parrot() -> Iterator[Callable[[int], Parrot]]:
    """`parrot(status)`: a server that repeats what it is sent."""
    made: list[Parrot] = []

    def make(status: int) -> Parrot:
        made.append(Parrot(status))
        return made[-1]

    yield make
    for each in made:
        each.close()


def secret(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return text


def test_no_secret_is_ever_said(
    mosquitto: Callable[..., Any],
    opcua_server: Callable[..., Any],
    parrot: Callable[[int], Parrot],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    fieldlab: Callable[..., Any],
) -> None:
    broker = mosquitto()
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    refusing, poisoned = parrot(401), parrot(400)
    address = f"127.0.0.1:{free_port()}"
    process = agent("", http=address, keys='http_token_file = "http-token"')
    at = process.folder
    secrets = [
        secret(at, "http-token", "SECRET-http-8d1fa7"),
        secret(at, "influx-token", 'SECRET-"influx\\-77ce'),
        secret(at, "influx-password", "SECRET-legacy-41bd"),
        secret(at, "wrong-password", "SECRET-mqtt-wrong-9ab"),
        secret(at, "out-password", "SECRET-mqtt-store-5f0"),
        secret(at, "opcua-password", "SECRET-opcua-c3e6"),
        broker.password,
    ]
    tables = (
        f'[[store]]\nkind = "influxdb"\nname = "v2"\nurl = "{refusing.url}"\norg = "o"\nbucket = "b"\n'
        'token_file = "influx-token"\n'
        f'[[store]]\nkind = "influxdb"\nname = "v1"\napi = "v1"\nurl = "{poisoned.url}"\nbucket = "b"\nuser = "u"\n'
        'password_file = "influx-password"\n'
        f'[[store]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\npassword_file = "out-password"\n'
        f'[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        f'password_file = "{broker.password_file}"\ntopics = ["fieldlab/#"]\n'
        f'[[source]]\nkind = "mqtt"\nurl = "{broker.url}"\nusername = "{broker.user}"\n'
        'password_file = "wrong-password"\ntopics = ["fieldlab/#"]\n'
    )
    opcua = server.source(["load"], 'username = "u"\npassword_file = "opcua-password"\n')
    process.configure(tables + opcua)
    process.start(connected=False)
    wait_until(lambda: process.status()["sources"][0]["connected"], 30.0)
    publish(broker).send([("fieldlab/x/y/z/m/a", '{"value": 1, "ts": 1763900000}')])
    wait_until(lambda: refusing.asked and process.consumer("v2")["error"] and poisoned.asked, 60.0)
    wait_until(lambda: all(s["error"] for s in process.status()["sources"][1:]), 30.0)
    said = {
        "status": json.dumps(process.status()),
        "metrics": _metrics(address, secrets[0]),
        "check": "".join(fieldlab("check", process.config)[1:]),
        "check --json": "".join(fieldlab("check", "--json", process.config)[1:]),
        "deadletters": fieldlab("deadletter", "list", "--json", "--config", process.config).out,
        "arguments": "\n".join(_arguments()),
    }
    process.configure(tables.replace("topics", "topcis") + opcua)
    said["bad configuration"] = fieldlab("check", process.config).err
    assert process.stop() == 0
    said["log"] = (process.folder / "agent.log").read_text("utf-8")
    said["data"] = "".join(p.read_bytes().decode("latin-1") for p in process.data.rglob("*") if p.is_file())
    assert "no rights" in said["status"]  # the words of the server that repeats what it was sent do get there
    for place, text in said.items():
        for one in secrets:
            for form in (one, json.dumps(one)[1:-1], base64.b64encode(one.encode()).decode()):
                assert form not in text, f"{one} in {place}"
        assert base64.b64encode(b"u:SECRET-legacy-41bd").decode() not in text, place


def _metrics(address: str, token: str) -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        return str(answer.read().decode())


def _arguments() -> Iterator[str]:
    for process in psutil.process_iter(["cmdline", "name"]):
        words = process.info["cmdline"] or []
        if "fieldlab.cli" in words:  # the broker's own tool of these tests is told its password by argument
            yield " ".join(words)


def test_a_secret_is_hidden_however_it_is_written() -> None:
    remember('quote"back\\slash-ü')
    remember("abc")  # too short to be told from a word
    text = json.dumps({"a": 'x quote"back\\slash-ü y', "b": "abc"})
    assert hide(text) == json.dumps({"a": "x *** y", "b": "abc"})
    assert hide('x quote"back\\slash-ü y') == "x *** y"
    assert hide("x " + base64.b64encode('quote"back\\slash-ü'.encode()).decode()) == "x ***"


def _break_with(kept: str) -> None:
    raise ValueError(len(kept))


def test_traceback_tells_no_values() -> None:
    out = io.StringIO()
    with contextlib.redirect_stderr(out):
        log_to_stderr()
        kept = "SECRET-in-a-variable"
        try:
            _break_with(kept)
        except ValueError:
            structlog.get_logger().exception("it_broke")
    assert "it_broke" in out.getvalue()
    assert "ValueError" in out.getvalue()
    assert kept not in out.getvalue()


def test_files_are_their_owners_alone(
    mosquitto: Callable[..., Any],
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    opcua = server.source(["load"])
    sparkplug = mqtt_source(broker).replace('"fieldlab/#"', '"spBv1.0/#"') + 'format = "sparkplug"\n'
    process = agent(mqtt_source(broker) + opcua + sparkplug).start()
    publish(broker).send([("fieldlab/x/y/z/m/a", '{"value": 1, "ts": 1763900000}'), ("fieldlab/x/y/z/m/b", "}{")])
    wait_until(lambda: process.ledger()["stored"] == 2 and process.settled(), 30.0)
    while_running = _modes(process.data)
    process.kill()
    process.start()
    assert process.stop() == 0
    modes = {**while_running, **_modes(process.data)}
    assert {"journal.db", "journal.db-wal", "embedded.duckdb", "agent.sock", "lock"} <= set(modes)
    assert any(name.startswith("opcua/") for name in modes)
    open_to_others = {name: oct(mode) for name, mode in modes.items() if mode & 0o077}
    assert not open_to_others


def _modes(data: Path) -> dict[str, int]:
    found = {".": stat.S_IMODE(data.stat().st_mode)}
    for path in data.rglob("*"):
        try:
            found[str(path.relative_to(data))] = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:
            continue  # a temporary file
    return found
