"""Pushes data source, boards, contact point and alert rules to a Grafana server, by uid; what is the same stays.

grafana-api carries the requests. Its numeric-id calls are not used: Grafana 13 has switched them off for data sources.
Paths: Grafana HTTP API reference (data source, folder, dashboard, alerting provisioning).
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException
from grafana_api.grafana_face import GrafanaFace

from deploy.grafana.alerts import CONTACT_POINT, FOLDER, FOLDER_UID, GROUP, contact_point, rule_group
from deploy.grafana.boards import BOARDS
from deploy.grafana.builder.dashboard import dashboard
from deploy.grafana.builder.parts import DATA_SOURCE, Json
from fieldlab.errors import ConfigError, RefusedError

_MOST_SHOWN = 5  # differences of one thing
_NOT_OURS = ("id", "version", "schemaVersion", "orgID")  # Grafana numbers these, or brings them up to date


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which Grafana, and what it shall have.

    Attributes:
        url: of Grafana, with its sub-path if it has one.
        token: of a service account.
        ca_file: certificates to trust, for https.
        influx_url: where Grafana finds InfluxDB; empty: the data source `fieldlab` is there already.
        influx_database: the database, or the bucket with InfluxDB 2.x.
        influx_token: with which Grafana reads; empty if InfluxDB needs none.
        mail: where alerts go; empty: the server's own notification policy decides.
    """

    url: str
    token: str
    ca_file: Path | None = None
    influx_url: str = ""
    influx_database: str = "telemetry"
    influx_token: str = ""
    mail: str = ""


class Change(msgspec.Struct, frozen=True):
    """What was, or would be, done to one thing; `differences` in words, as it is there → as it will be."""

    what: str
    state: Literal["create", "change", "same"]
    differences: tuple[str, ...] = ()


def push(target: Target, *, dry_run: bool) -> Iterator[Change]:
    """Bring everything up to date, one thing after another; with `dry_run` only say what would be done.

    Raises:
        ConfigError: if the address is none.
        RefusedError: if Grafana cannot be reached, refuses, or has the thing from a provisioning file.
    """
    server = _Server(target)
    for step in (_data_source, _folder, _boards, _contact, _rules):
        for change, apply in step(server, target):
            if not dry_run and change.state != "same":
                apply()
            yield change


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where `found` is not as wanted. What Grafana has added, and what is empty on both sides, is no difference."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        told = []
        for key, value in wanted.items():
            if key not in _NOT_OURS:
                told += differences(value, found.get(key), f"{path}.{key}" if path else key)
        return told
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            d for i, (a, b) in enumerate(zip(wanted, found, strict=True)) for d in differences(a, b, f"{path}[{i}]")
        ]
    if wanted == found or (not wanted and not found):
        return []
    return [f"{path}: {_short(found)} → {_short(wanted)}"]


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{len(value)} entries"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"


_Step = Iterator[tuple[Change, Callable[[], Any]]]


def _data_source(server: "_Server", target: Target) -> _Step:
    path = f"/datasources/uid/{DATA_SOURCE['uid']}"
    found = server.get(path)
    if not target.influx_url:
        if found is None:
            raise RefusedError(
                f"{target.url} has no data source with the uid {DATA_SOURCE['uid']}, which the boards read; "
                "give --influx-url and --influx-database, and it will be made"
            )
        return
    settings: Json = {"dbName": target.influx_database, "httpMode": "POST", "timeInterval": "1s"}
    wanted: Json = {"name": "Fieldlab", "access": "proxy", "url": target.influx_url, **DATA_SOURCE}
    wanted["jsonData"] = settings | ({"httpHeaderName1": "Authorization"} if target.influx_token else {})
    secret = {"secureJsonData": {"httpHeaderValue1": f"Token {target.influx_token}"}} if target.influx_token else {}
    if found is None:
        yield Change("data source Fieldlab", "create"), lambda: server.post("/datasources", wanted | secret)
        return
    told = differences(wanted, found)
    if target.influx_token:
        told.append("token: sent again (Grafana does not tell whether it is the same)")
    if told and found.get("readOnly"):
        raise RefusedError(_from_file("data source", DATA_SOURCE["uid"]))
    yield _change("data source Fieldlab", told), lambda: server.put(path, wanted | secret)


def _folder(server: "_Server", target: Target) -> _Step:
    del target
    if server.get(f"/folders/{FOLDER_UID}") is None:
        wanted = {"uid": FOLDER_UID, "title": FOLDER}
        yield Change(f"folder {FOLDER}", "create"), lambda: server.post("/folders", wanted)
    else:
        yield Change(f"folder {FOLDER}", "same"), lambda: None


def _boards(server: "_Server", target: Target) -> _Step:
    del target
    for board in BOARDS:
        wanted = dashboard(board)
        body = {
            "dashboard": wanted | {"id": None},
            "folderUid": FOLDER_UID,
            "overwrite": True,
            "message": "fieldlab boards push",
        }
        found = server.get(f"/dashboards/uid/{board.uid}")
        what = f"board {board.title} ({board.uid})"
        if found is None:
            change = Change(what, "create")
        else:
            told = differences(wanted, found["dashboard"])
            told += differences(FOLDER_UID, found["meta"].get("folderUid"), "folder")
            if told and found["meta"].get("provisioned"):
                raise RefusedError(_from_file("board", board.uid))
            change = _change(what, told)
        yield change, partial(server.post, "/dashboards/db", body)


def _contact(server: "_Server", target: Target) -> _Step:
    if not target.mail:
        return
    wanted = contact_point(target.mail) | {"name": CONTACT_POINT, "disableResolveMessage": False}
    path = "/v1/provisioning/contact-points"
    listed = server.get(f"{path}?name={quote(CONTACT_POINT)}") or []
    found = next((point for point in listed if point["uid"] == wanted["uid"]), None)
    what = f"contact point {CONTACT_POINT}"
    if found is None:
        yield Change(what, "create"), lambda: server.post(path, wanted)
    else:
        yield _change(what, differences(wanted, found)), lambda: server.put(f"{path}/{wanted['uid']}", wanted)


def _rules(server: "_Server", target: Target) -> _Step:
    wanted = rule_group(contact=bool(target.mail))
    if not target.mail:
        wanted["rules"] = [rule | {"notification_settings": None} for rule in wanted["rules"]]
    path = f"/v1/provisioning/folder/{FOLDER_UID}/rule-groups/{quote(GROUP)}"
    found = server.get(path)
    what = f"alert rules {GROUP} ({len(wanted['rules'])})"
    change = Change(what, "create") if found is None else _change(what, differences(wanted, found))
    yield change, lambda: server.put(path, wanted)


def _change(what: str, told: list[str]) -> Change:
    if len(told) > _MOST_SHOWN:
        told = [*told[:_MOST_SHOWN], f"and {len(told) - _MOST_SHOWN} more"]
    return Change(what, "change" if told else "same", tuple(told))


def _from_file(kind: str, uid: str) -> str:
    return (
        f"the {kind} {uid} comes from a provisioning file of that Grafana, which push cannot change; "
        "bring the file up to date, or remove it from the server's provisioning and push again"
    )


class _Server:
    """Requests by raw verbs, and refusals in words."""

    def __init__(self, target: Target) -> None:
        try:
            url = urlsplit(target.url)
            port = url.port
        except ValueError:
            url, port = urlsplit(""), None
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.username:
            raise ConfigError("must be Grafana's address, such as https://grafana.example:3000", key="--url")
        self._url = target.url
        host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        prefix = url.path.strip("/")
        self._api = GrafanaFace(
            auth=target.token,
            host=host,
            port=port,
            url_path_prefix=f"{prefix}/" if prefix else "",
            protocol=url.scheme,
            verify=str(target.ca_file) if target.ca_file else True,
            timeout=30.0,
        ).api

    def get(self, path: str) -> Any:
        """The answer, or None if there is no such thing."""
        return self._ask("GET", path)

    def post(self, path: str, body: Json) -> Any:
        """Make something."""
        return self._ask("POST", path, body)

    def put(self, path: str, body: Json) -> Any:
        """Replace something."""
        return self._ask("PUT", path, body)

    def _ask(self, verb: str, path: str, body: Json | None = None) -> Any:
        try:
            return getattr(self._api, verb)(path, json=body)
        except GrafanaClientError as e:
            if e.status_code == requests.codes.not_found and verb == "GET":
                return None
            raise RefusedError(self._refusal(verb, path, e)) from e
        except GrafanaException as e:
            raise RefusedError(f"{self._url} failed at {verb} /api{path}: {e.message}; see Grafana's own log") from e
        except requests.exceptions.JSONDecodeError as e:
            raise RefusedError(
                f"what answers at {self._url} is not Grafana's API ({verb} /api{path} gave no JSON); does the address "
                "need a sub-path?"
            ) from e
        except requests.exceptions.SSLError as e:
            raise RefusedError(
                f"the certificate of {self._url} is not trusted: {e}; give --ca-file with the one that signed it"
            ) from e
        except (requests.exceptions.RequestException, OSError) as e:
            raise RefusedError(f"{self._url} cannot be reached: {e}") from e

    def _refusal(self, verb: str, path: str, e: GrafanaClientError) -> str:
        where = f"{verb} /api{path}"
        match e.status_code:
            case requests.codes.unauthorized:
                return (
                    f"{self._url} does not know the token; make a service account with the role Admin, and write its "
                    "token to the token file"
                )
            case requests.codes.forbidden:
                return f"the token may not {where}: its service account needs the role Admin ({_message(e)})"
            case requests.codes.conflict:
                return (
                    f"{self._url} refuses {where}: {_message(e)}; what a provisioning file or somebody else owns "
                    "cannot be pushed over: remove it there first"
                )
            case _:
                return f"{self._url} refuses {where} with {e.status_code}: {_message(e)}"


def _message(e: GrafanaClientError) -> str:
    found = e.response
    return str(found.get("message") or found) if isinstance(found, dict) else str(found)
