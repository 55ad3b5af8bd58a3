"""`fieldlab boards push` against a server that answers as Grafana's HTTP API reference says. It is not Grafana."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from deploy.grafana.alerts import RULES
from deploy.grafana.boards import BOARDS
from deploy.grafana.push import differences
from fieldlab import cli

TOKEN = "glsa_the-token"


class Grafana:
    """What a Grafana holds, and the answers it gives. `refuse` maps (verb, path) to a scripted answer."""

    def __init__(self) -> None:
        self.sources: dict[str, Any] = {}
        self.folders: dict[str, Any] = {}
        self.boards: dict[str, Any] = {}
        self.contacts: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.provisioned: set[str] = set()
        self.refuse: dict[tuple[str, str], tuple[int, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        self.token = TOKEN
        self.url = ""

    @property
    def written(self) -> list[tuple[str, str]]:
        return [(verb, path) for verb, path in self.asked if verb != "GET"]

    def answer(self, verb: str, url: str, body: Any, authorization: str) -> tuple[int, Any]:
        parts = urlsplit(url)
        path = unquote(parts.path)
        self.asked.append((verb, path))
        if (verb, path) in self.refuse:
            return self.refuse[verb, path]
        if authorization != f"Bearer {self.token}":
            return 401, {"message": "Invalid API key"}
        assert path.startswith("/sub/api/"), path
        words = path.removeprefix("/sub/api/").split("/")
        match verb, words:
            case "GET", ["datasources", "uid", uid]:
                return found(self.sources.get(uid), "Data source not found")
            case ("POST", ["datasources"]) | ("PUT", ["datasources", "uid", _]):
                secret = body.pop("secureJsonData", {})  # never given back
                self.sources[body["uid"]] = {"id": 3, "orgId": 1, "readOnly": False, **body} | {
                    "secureJsonFields": dict.fromkeys(secret, True),
                    "version": 7,
                }
                return 200, {"message": "Datasource added", "datasource": self.sources[body["uid"]]}
            case "GET", ["folders", uid]:
                return found(self.folders.get(uid), "folder not found")
            case "POST", ["folders"]:
                self.folders[body["uid"]] = {"id": 1, **body}
                return 200, self.folders[body["uid"]]
            case "GET", ["dashboards", "uid", uid]:
                return found(self.boards.get(uid), "Dashboard not found")
            case "POST", ["dashboards", "db"]:
                board = body["dashboard"]
                assert body["folderUid"] in self.folders
                version = self.boards.get(board["uid"], {"dashboard": {"version": 0}})["dashboard"]["version"] + 1
                stored = {**board, "id": 17, "version": version, "schemaVersion": 42, "preload": False}
                meta = {"folderUid": body["folderUid"], "provisioned": board["uid"] in self.provisioned}
                self.boards[board["uid"]] = {"dashboard": stored, "meta": meta}
                return 200, {"id": 17, "uid": board["uid"], "status": "success", "version": version}
            case "GET", ["v1", "provisioning", "contact-points"]:
                name = parse_qs(parts.query)["name"][0]
                return 200, [c for c in self.contacts.values() if c["name"] == name]
            case "POST", ["v1", "provisioning", "contact-points"]:
                self.contacts[body["uid"]] = {**body, "provenance": "api"}
                return 202, body
            case "PUT", ["v1", "provisioning", "contact-points", uid]:
                self.contacts[uid] = {**body, "provenance": "api"}
                return 202, {"message": "contactpoint updated"}
            case "GET", ["v1", "provisioning", "folder", _, "rule-groups", group]:
                return found(self.groups.get(group), "")
            case "PUT", ["v1", "provisioning", "folder", folder, "rule-groups", group]:
                assert folder in self.folders
                receivers = {
                    r["notification_settings"]["receiver"] for r in body["rules"] if r["notification_settings"]
                }
                if not receivers <= {c["name"] for c in self.contacts.values()}:
                    return 400, {"message": "invalid receiver"}
                for i, rule in enumerate(body["rules"]):
                    rule |= {"id": i, "updated": "2026-01-01T00:00:00Z", "provenance": "api", "orgID": 9}
                    rule["data"] = [{k: v for k, v in query.items() if v != ""} for query in rule["data"]]
                self.groups[group] = body
                return 200, body
        return 404, {"message": "Not found"}


def found(thing: Any, message: str) -> tuple[int, Any]:
    return (404, {"message": message}) if thing is None else (200, thing)


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[Grafana]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    held = Grafana()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, answer = held.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _handle  # noqa: N815  names that http.server asks for

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_port}/sub/"
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / f"secret-{text[:4]}"
        path.touch(0o600)
        path.write_text(text + "\n")
        return path

    return write


@pytest.fixture
def push(
    grafana: Grafana, secret: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `fieldlab boards push` with more arguments: exit code, stdout, stderr."""

    def run(*more: str, token: str = TOKEN) -> tuple[int, str, str]:
        arguments = ["boards", "push", "--url", grafana.url, "--token-file", str(secret(token)), *more]
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


INFLUX = ("--influx-url", "http://influxdb:8086", "--influx-database", "telemetry")


def test_everything_is_made_then_nothing_changes(grafana: Grafana, push: Any, secret: Any) -> None:
    reader = ("--influx-token-file", str(secret("read-only token")))
    code, out, _ = push(*INFLUX, *reader, "--mail", "quality@example.com")
    assert code == 0, out
    assert set(grafana.boards) == {board.uid for board in BOARDS}
    assert {b["meta"]["folderUid"] for b in grafana.boards.values()} == {"fieldlab"}
    assert grafana.sources["fieldlab"]["jsonData"]["dbName"] == "telemetry"
    assert grafana.sources["fieldlab"]["secureJsonFields"] == {"httpHeaderValue1": True}
    rules = grafana.groups["Fieldlab"]["rules"]
    assert [r["uid"] for r in rules] == [r.uid for r in RULES]
    assert {r["notification_settings"]["receiver"] for r in rules} == {"Fieldlab"}
    assert out.count("+ ") == 12
    assert "12 of 12 changed" in out
    grafana.asked.clear()
    code, out, _ = push("--mail", "quality@example.com")
    assert (code, grafana.written) == (0, [])
    assert "0 of 11 changed" in out


def test_a_token_is_sent_again_and_said_so(grafana: Grafana, push: Any, secret: Any) -> None:
    reader = ("--influx-token-file", str(secret("read-only token")))
    push(*INFLUX, *reader)
    grafana.asked.clear()
    _, out, _ = push(*INFLUX, *reader)
    assert "token: sent again" in out
    assert "read-only token" not in out
    assert grafana.written == [("PUT", "/sub/api/datasources/uid/fieldlab")]


def test_a_dry_run_says_what_would_change_and_writes_nothing(grafana: Grafana, push: Any) -> None:
    code, out, _ = push(*INFLUX, "--dry-run")
    assert (code, grafana.written) == (0, [])
    assert "+ board Fieldlab (fieldlab-hall): create" in out
    assert "would change" in out


def test_what_somebody_changed_is_named_and_put_right(grafana: Grafana, push: Any) -> None:
    push(*INFLUX)
    grafana.boards["fieldlab-hall"]["dashboard"]["panels"][0]["title"] = "Mine"
    grafana.boards["fieldlab-parts"]["meta"]["folderUid"] = "elsewhere"
    grafana.groups["Fieldlab"]["rules"][1]["for"] = "1h"
    grafana.asked.clear()
    _, out, _ = push()
    assert '    panels[0].title: "Mine" → "Open alarms"' in out
    assert '    folder: "elsewhere" → "fieldlab"' in out
    assert '    rules[1].for: "1h" → "1m"' in out
    assert "3 of 10 changed" in out
    assert len(grafana.written) == 3
    assert grafana.boards["fieldlab-hall"]["dashboard"]["panels"][0]["title"] == "Open alarms"


def test_without_mail_the_policy_decides(grafana: Grafana, push: Any) -> None:
    push(*INFLUX, "--mail", "quality@example.com")
    _, out, _ = push()
    assert "notification_settings" in out
    assert {r["notification_settings"] for r in grafana.groups["Fieldlab"]["rules"]} == {None}
    assert "fieldlab-mail" in grafana.contacts  # what is not asked for is left alone


API = "/sub/api"


@pytest.mark.parametrize(
    ("refusal", "more", "told"),
    [
        ({}, (), "has no data source with the uid fieldlab"),
        ({("POST", f"{API}/folders"): (403, {"message": "no folders:create"})}, INFLUX, "needs the role Admin"),
        (
            {("POST", f"{API}/dashboards/db"): (412, {"message": "changed by someone"})},
            INFLUX,
            "412: changed by someone",
        ),
        (
            {("PUT", f"{API}/v1/provisioning/folder/fieldlab/rule-groups/Fieldlab"): (409, {"message": "provenance"})},
            INFLUX,
            "remove it there first",
        ),
        ({("POST", f"{API}/datasources"): (500, {"message": "database is locked"})}, INFLUX, "database is locked"),
        ({("POST", f"{API}/datasources"): (502, b"<html>bad gateway</html>")}, INFLUX, "bad gateway"),
        ({("GET", f"{API}/datasources/uid/fieldlab"): (200, b"<html>log in</html>")}, INFLUX, "is not Grafana's API"),
    ],
)
def test_refusals_in_words(grafana: Grafana, push: Any, refusal: Any, more: tuple[str, ...], told: str) -> None:
    grafana.refuse = refusal
    code, _, err = push(*more)
    assert code == 1
    assert told in err
    assert "Traceback" not in err
    assert TOKEN not in err


def test_a_wrong_token(push: Any) -> None:
    code, _, err = push(*INFLUX, token="wrong")
    assert code == 1
    assert "does not know the token" in err


def test_what_a_file_provisions_is_refused(grafana: Grafana, push: Any) -> None:
    push(*INFLUX)
    grafana.boards["fieldlab-hall"]["meta"]["provisioned"] = True
    grafana.boards["fieldlab-hall"]["dashboard"]["title"] = "Old"
    code, _, err = push()
    assert code == 1
    assert "comes from a provisioning file" in err
    grafana.boards["fieldlab-hall"]["dashboard"]["title"] = "Fieldlab"
    grafana.sources["fieldlab"] |= {"readOnly": True}
    assert push(*INFLUX)[0] == 0  # the same: nothing to change
    code, _, err = push("--influx-url", "http://other:8086")
    assert code == 1
    assert "comes from a provisioning file" in err


def test_nobody_there(push: Any, grafana: Grafana, free_port: Callable[[], int]) -> None:
    grafana.url = f"http://127.0.0.1:{free_port()}"
    code, _, err = push()
    assert code == 1
    assert "cannot be reached" in err


@pytest.mark.parametrize("url", ["grafana:3000", "ftp://grafana", "http://", "http://user:pw@grafana", "http://g:port"])
def test_an_address_that_is_none(push: Any, grafana: Grafana, url: str) -> None:
    grafana.url = url
    code, _, err = push()
    assert code == 2
    assert "--url" in err


def test_secrets_must_be_private(grafana: Grafana, secret: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = secret(TOKEN)
    path.chmod(0o644)
    assert cli.main(["boards", "push", "--url", grafana.url, "--token-file", str(path)]) == 2
    assert "chmod 600" in capsys.readouterr().err
    assert cli.main(["boards", "push", "--url", grafana.url]) == 2
    assert "--token-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "given", "told"),
    [
        ({"a": 1}, {"a": 1, "more": 2}, []),
        ({"a": []}, {}, []),
        ({"a": 0}, {"a": 0.0}, []),
        ({"a": 1}, {}, ["a: null → 1"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a: 1 entries → 2 entries"]),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, ["a[0].b: 2 → 1"]),
        ({"version": 1, "schemaVersion": 39}, {"version": 5, "schemaVersion": 42}, []),
    ],
)
def test_differences(wanted: Any, given: Any, told: list[str]) -> None:
    assert differences(wanted, given) == told
