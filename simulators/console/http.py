"""The console over HTTP, on loopback only.

    GET  /status    as `Control.status`
    POST /inject    {"machine": "printer-02", "kind": "nozzle_clog", "severity": 1.0, "parts": 15}
    POST /repair    {"machine": "printer-02"}
    POST /pause     {}
    POST /resume    {}
    POST /speed     {"speed": 10.0}

A request must name a loopback host, and a POST must be `application/json`: so no page in a browser can send one.
"""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from simulators.console.control import Control, ControlError

_LARGEST = 65_536  # bytes of a request
_PATIENCE = 10.0  # s for a request to come
_HOSTS = ("127.0.0.1", "localhost")

_log = structlog.get_logger()


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Inject(msgspec.Struct, forbid_unknown_fields=True):
    machine: str
    kind: str
    severity: float = 1.0
    parts: int | None = None


class _Repair(msgspec.Struct, forbid_unknown_fields=True):
    machine: str


class _Speed(msgspec.Struct, forbid_unknown_fields=True):
    speed: float


class ControlServer:
    """Serves a console; an asynchronous context manager.

    Args:
        control: what to serve.
        port: on loopback; 0 takes a free one.

    Attributes:
        url: where it listens.
    """

    def __init__(self, control: Control, *, port: int = 0) -> None:
        self._control, self._port = control, port
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=_LARGEST)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                status, answer = await self._answer(reader)
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            status, answer = 400, {"error": "not a request"}
        body = msgspec.json.encode(answer) + b"\n"
        fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        head = f"HTTP/1.1 {status} -\r\n{fields}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, Any]:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        try:
            _from_here(fields)
            if method == "GET" and path == "/status":
                return 200, self._control.status()
            return 200, await self._command(method, path, fields, reader)
        except _RefusedError as e:
            return e.status, {"error": str(e)}
        except msgspec.DecodeError as e:
            return 400, {"error": str(e)}
        except ControlError as e:
            return 409, {"error": str(e)}

    async def _command(self, method: str, path: str, fields: dict[str, str], reader: asyncio.StreamReader) -> Any:
        if method != "POST" or path not in _COMMANDS:
            raise _RefusedError(404, f"there are GET /status and POST {' '.join(_COMMANDS)}")
        if fields.get("content-type", "").partition(";")[0] != "application/json":
            raise _RefusedError(415, "the content must be application/json")
        length = int(fields.get("content-length", "0"))
        if not 0 <= length <= _LARGEST:
            raise _RefusedError(413, "the request is too large")
        body = await reader.readexactly(length)
        done = _COMMANDS[path](self._control, body or b"{}")
        _log.info("console_command", command=path, body=body.decode("utf-8", "replace"))
        return done or {}


def _from_here(fields: dict[str, str]) -> None:
    """Refuse a page whose name was made to point to this computer."""
    if fields.get("host", "").rpartition(":")[0] not in _HOSTS:
        raise _RefusedError(403, "the host must be 127.0.0.1 or localhost, with the port")


def _inject(control: Control, body: bytes) -> dict[str, Any]:
    asked = msgspec.json.decode(body, type=_Inject)
    return control.inject(asked.machine, asked.kind, severity=asked.severity, parts=asked.parts)


def _repair(control: Control, body: bytes) -> dict[str, Any]:
    return control.repair(msgspec.json.decode(body, type=_Repair).machine)


def _speed(control: Control, body: bytes) -> None:
    control.speed(msgspec.json.decode(body, type=_Speed).speed)


_COMMANDS: dict[str, Callable[[Control, bytes], dict[str, Any] | None]] = {
    "/inject": _inject,
    "/repair": _repair,
    "/pause": lambda control, _: control.pause(),
    "/resume": lambda control, _: control.resume(),
    "/speed": _speed,
}
