"""The agent over the network: who may read, and that nobody may change anything."""

import base64
import http.client
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a-token-that-nobody-guesses"
SOURCE = '[[source]]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:9"\ntopics = ["fieldlab/#"]\n'  # nobody is there
CHANGES = (
    "/deadletters/drop",
    "/deadletters/replay",
    "/status",
    "/metrics",
    "/ledger",
    "/query/signals",
    "/",
    "/api/now",
)


def ask(
    address: str, path: str, method: str = "GET", host: str = "localhost", body: str | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def started(agent: Callable[..., Any], free_port: Callable[[], int]) -> Callable[..., tuple[Any, str]]:
    """An agent without machines, and its address; `token` gives it one."""

    def start(*, token: str = "") -> tuple[Any, str]:
        address = f"127.0.0.1:{free_port()}"
        process = agent(SOURCE, http=address, keys='http_token_file = "token"' if token else "")
        secret = process.folder / "token"
        secret.write_text(token + "\n")
        secret.chmod(0o600)
        return process.start(connected=False), address

    return start


def test_nothing_is_read_without_the_token(started: Callable[..., tuple[Any, str]]) -> None:
    process, address = started(token=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    login = {"Authorization": "Basic " + base64.b64encode(f"anyone:{TOKEN}".encode()).decode()}
    paths = (
        "/status",
        "/metrics",
        "/readyz",
        "/query/signals",
        "/",
        "/api/events",
        "/static/plotly.min.js",
        "/nowhere",
    )
    for path in paths:
        assert ask(address, path)[0] == 401, path
    assert ask(address, "/healthz") == (200, b"ok\n")
    for wrong in ("Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Basic !!!", f"Digest {TOKEN}", TOKEN):
        assert ask(address, "/status", Authorization=wrong)[0] == 401, wrong
    for given in (bearer, login):
        assert ask(address, "/status", **given)[0] == 200
        assert ask(address, "/", **given)[0] == 200
        assert ask(address, "/", host="line-3.plant.example", **given)[0] == 200  # by whatever name it is reached
    assert json.loads(ask(address, "/status", **bearer)[1])["agent"] == "test"
    assert process.status()["agent"] == "test"  # the Unix socket needs no token: the file system keeps it
    assert TOKEN not in str(process.log)
    assert process.stop() == 0


@pytest.mark.parametrize("token", ["", TOKEN])
def test_nothing_is_changed_over_the_network(token: str, started: Callable[..., tuple[Any, str]]) -> None:
    process, address = started(token=token)
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT-ME"):
        for path in CHANGES:
            assert ask(address, path, method)[0] == (401 if token else 403), (method, path)
            if token:
                assert ask(address, path, method, Authorization=f"Bearer {token}")[0] == 403, (method, path)
    assert process.stop() == 0


def test_people_may_acknowledge_from_the_board_and_no_page_of_elsewhere(
    started: Callable[..., tuple[Any, str]],
) -> None:
    """It changes no data: the word is a record of its own. What is no word on a finding is refused."""
    process, address = started(token=TOKEN)
    path, login = "/api/acknowledge", {"Authorization": f"Bearer {TOKEN}"}
    json_ = {**login, "Content-Type": "application/json"}
    word = json.dumps({"id": "0" * 16, "by": "Sjoerd", "cause": "tool"})

    def post(body: str = word, **headers: str) -> int:
        return ask(address, path, "POST", body=body, **headers)[0]

    assert post(**json_, Origin="http://localhost") == 202
    assert post(**json_) == 202, "a program, which has no origin"
    assert post(**{"Content-Type": "application/json"}) == 401
    assert post(**login) == 403, "a form of elsewhere cannot send JSON"
    assert post(**json_, Origin="http://evil.example") == 403
    assert post(**json_, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert ask(address, path, "DELETE", **json_)[0] == 403
    assert post("{}", **json_) == 400
    assert post(" " * 5000, **json_) == 413
    assert process.stop() == 0


def test_web_page_of_elsewhere_reads_nothing(started: Callable[..., tuple[Any, str]]) -> None:
    process, address = started()
    assert ask(address, "/status", host="evil.example")[0] == 400
    assert ask(address, "/status", host=address)[0] == 200
    assert process.stop() == 0


@pytest.mark.parametrize("host", ["0.0.0.0:8321", "192.168.1.7:8321", "[::]:8321", ":8321", "line-3.local:8321"])
def test_address_that_others_reach_needs_a_token(
    host: str, agent: Callable[..., Any], fieldlab: Callable[..., Any]
) -> None:
    process = agent(SOURCE, http=host)
    done = fieldlab("agent", process.config)
    assert done.code == 2
    assert f"{process.config}:4: agent.http: '{host}' can be reached by others" in done.err
    assert "http_token_file" in done.err


@pytest.mark.parametrize(("token", "mode", "words"), [("short", 0o600, "16 characters"), (TOKEN, 0o644, "chmod 600")])
def test_token_that_protects_nothing_is_refused(
    token: str,
    mode: int,
    words: str,
    agent: Callable[..., Any],
    fieldlab: Callable[..., Any],
    free_port: Callable[[], int],
) -> None:
    process = agent(SOURCE, http=f"127.0.0.1:{free_port()}", keys='http_token_file = "token"')
    secret: Path = process.folder / "token"
    secret.write_text(token)
    secret.chmod(mode)
    done = fieldlab("agent", process.config)
    assert done.code == 2
    assert words in done.err
    assert token not in done.err
