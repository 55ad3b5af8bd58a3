"""Reads a machine that greets, and then tells `signal value` line by line over TCP, as scales and counters do."""

import asyncio
import contextlib
import math
import time
from concurrent.futures import Future
from typing import Any

import msgspec

from edge.sources.base import CheckLine, Sink, Source, SourceContext, SourceKind, SourceStatus
from fieldlab.config import Duration
from fieldlab.model import Batch, Place, SignalKey
from fieldlab.model.status import BAD_NO_COMMUNICATION
from ingest.stores.base import DeadLetter

_PENDING = 100  # lines that may wait for the disk


class LinesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[[source]]` table."""

    kind: str
    host: str
    port: int
    machine: str
    retry: Duration = Duration(0.2)


class LinesSource:
    """One machine."""

    def __init__(self, config: LinesConfig, context: SourceContext, sink: Sink) -> None:
        self.name = context.name
        self._config = config
        self._sink = sink
        self._place = Place(context.site, context.area, context.line, config.machine)
        self._heard: set[int] = set()
        self._pending: set[Future[None]] = set()
        self._connected = False
        self._error = "not connected yet"
        self._last_data = self._last_time = 0
        self._lines = self._unreadable = 0

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            kind="lines",
            url=f"tcp://{self._config.host}:{self._config.port}",
            connected=self._connected,
            error=self._error,
            signals=len(self._heard),
            last_data=self._last_data,
            counters={"lines": self._lines, "unreadable": self._unreadable},
        )

    async def run(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                reading = asyncio.create_task(self._read())
                await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
                self._lose()
                if not stop.is_set():
                    await asyncio.wait([stopping], timeout=self._config.retry)
        finally:
            stopping.cancel()

    async def _read(self) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self._config.host, self._config.port)
            if await reader.readline() == b"lines 1.0\n":
                self._connected, self._error = True, ""
            while line := await reader.readline():
                self._take(line)
                while len(self._pending) >= _PENDING:  # TCP holds the machine back meanwhile
                    await asyncio.wait(
                        [asyncio.wrap_future(f) for f in self._pending], return_when=asyncio.FIRST_COMPLETED
                    )
                    self._pending = {f for f in self._pending if not f.done()}
            self._error = f"{self._config.host}:{self._config.port} closed the connection"
        except OSError as e:
            self._error = f"{self._config.host}:{self._config.port}: {e}"
        finally:
            if writer is not None:
                writer.close()

    def _take(self, line: bytes) -> None:
        self._last_data = time.time_ns()
        self._last_time = max(self._last_time + 1, self._last_data)
        self._lines += 1
        try:
            name, value = line.decode().split()
            index = self._sink.index(SignalKey.parse(f"{self._place.path}/{name}"), "from-receipt")
            kept = self._sink.append(Batch.of([index], [self._last_time], [float(value)]))
            self._heard.add(index)
        except ValueError as e:
            self._unreadable += 1
            letter = DeadLetter(
                store=self.name,
                machine=self._place.path,
                signal="",
                readings=1,
                reason=f"not `signal value`: {e}",
                first=self._last_data,
                last=self._last_data,
                body=line,
            )
            kept = self._sink.set_aside([letter])
        self._pending.add(kept)

    def _lose(self) -> None:
        self._connected = False
        self._error = self._error or "stopped"
        if self._heard:
            n = len(self._heard)
            status = [BAD_NO_COMMUNICATION] * n
            self._sink.append(Batch.of(sorted(self._heard), [time.time_ns()] * n, [math.nan] * n, status))
            self._heard.clear()


class LinesKind:
    """The kind `lines`."""

    config: type[msgspec.Struct] = LinesConfig

    def create(self, config: Any, context: SourceContext, sink: Sink) -> Source:
        return LinesSource(config, context, sink)

    async def check(self, config: Any, context: SourceContext) -> list[CheckLine]:
        subject = f"{context.name} {config.machine}"
        try:
            _, writer = await asyncio.open_connection(config.host, config.port)
        except OSError as e:
            return [CheckLine(level="fail", subject=subject, text=f"{config.host}:{config.port}: {e}")]
        writer.close()
        return [CheckLine(level="ok", subject=subject, text=f"{config.host}:{config.port} answers")]


KIND: SourceKind = LinesKind()
