"""Writes records to InfluxDB, and finds the lines at fault when it refuses some."""

import re
import threading
from collections.abc import Sequence

import numpy as np
import structlog
from numpy.typing import NDArray

from fieldlab.model import Record, SignalTable
from ingest.line_protocol import LineEncoder, Lines, join
from ingest.stores.base import QUERYABLE, DeadLetter, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.influxdb.config import InfluxConfig
from ingest.stores.influxdb.guard import SchemaGuard
from ingest.stores.influxdb.transport import Answer, Transport

MOST_LINES = 5_000
MOST_BYTES = 1_000_000
"""The bounds of one request."""

_REFUSED = frozenset({201, 400, 422})  # 201: InfluxDB's managed services, when they took only a part
_BUSY = frozenset({408, 425, 429})
_DROPPED = re.compile(r"\bdropped=(\d+)$")
_log = structlog.get_logger()


class InfluxStore:
    """One bucket of one InfluxDB. Writing the same records again changes nothing: series and time identify a point."""

    kinds = QUERYABLE

    def __init__(self, name: str, config: InfluxConfig, transport: Transport, signals: SignalTable) -> None:
        self.name = name
        self._config = config
        self._transport = transport
        self._signals = signals
        self._encoder = LineEncoder(signals)
        self._guard = SchemaGuard(config)
        self._lock = threading.Lock()

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """See `Store`. What the server refuses with 400 or 422 is bisected down to the lines at fault."""
        with self._lock:
            return self._write(join([part for record in records for part in self._encode(record)]))

    def resend(self, letter: DeadLetter) -> Sequence[DeadLetter]:
        """Send a dead letter again: what is refused once more comes back.

        Raises:
            StoreError: nothing counts as kept.
        """
        lines = letter.body.splitlines()
        index = next(iter(letter.counts)) if len(letter.counts) == 1 else -1
        times = np.array([int(line.rpartition(b" ")[2]) for line in lines], np.int64)
        about = {} if index >= 0 else dict.fromkeys(range(len(lines)), (letter.machine, letter.signal))
        with self._lock:
            self._guard.refresh(now=bool(self._guard.conflicts))  # it comes again because somebody mended something
            return self._write(Lines(letter.body, np.full(len(lines), index, np.int64), times, about))

    def close(self) -> None:
        """Drop the connections."""
        self._transport.close()

    def _encode(self, record: Record) -> list[Lines]:
        parts = [self._encoder.batch(record.batch)] if record.batch is not None else []
        return [*parts, self._encoder.rows(record.rows, record.time)] if record.rows else parts

    def _write(self, lines: Lines) -> Sequence[DeadLetter]:
        if not len(lines):
            return []
        starts = _starts(lines)
        self._guard.refresh()
        kept_away = self._guard.against(lines, starts)
        if kept_away:
            rest = _without(lines, starts, kept_away)
            return [*self._letters(lines, starts, kept_away), *self._send_all(rest, _starts(rest))]
        return self._send_all(lines, starts)

    def _send_all(self, lines: Lines, starts: NDArray[np.intp]) -> Sequence[DeadLetter]:
        refused: dict[int, str] = {}
        first = 0
        while first < len(lines):
            fitting = int(np.searchsorted(starts, starts[first] + MOST_BYTES, "right")) - 1
            end = min(max(fitting, first + 1), first + MOST_LINES, len(lines))
            self._send(lines.body, starts, first, end, refused)
            first = end
        if refused:
            self._guard.refresh(now=any("conflict" in reason for reason in refused.values()))
            _log.warning(
                "store_refused_lines", store=self.name, lines=len(refused), reason=next(iter(refused.values()))
            )
        return self._letters(lines, starts, refused)

    def _send(self, body: bytes, starts: NDArray[np.intp], first: int, end: int, refused: dict[int, str]) -> None:
        """Send lines [first, end). An outage raises, also in the middle of a bisection: then nothing is decided."""
        answer = self._transport.write(body[starts[first] : starts[end]])
        if answer.status == 204:
            return
        if answer.status not in _REFUSED and answer.status != 413:
            raise self._error(answer)
        if answer.words.startswith("<") or "request to an HTTPS server" in answer.words:
            raise self._error(answer)  # a proxy's page, or plain http to a TLS port: not a verdict on our lines
        dropped = _DROPPED.search(answer.words)
        if end - first == 1 or (dropped and int(dropped[1]) == end - first):
            reason = f"{answer.status}: {answer.words or 'no reason given'}"
            refused.update(dict.fromkeys(range(first, end), reason))
            return
        middle = (first + end) // 2
        self._send(body, starts, first, middle, refused)
        self._send(body, starts, middle, end, refused)

    def _error(self, answer: Answer) -> StoreUnavailableError | StoreMisconfiguredError:
        config, status = self._config, answer.status
        said = f"{config.url} answered {status} {answer.words}".rstrip()
        if status >= 500 or status in _BUSY:
            return StoreUnavailableError(said, retry_after=answer.retry_after)
        what = "bucket" if config.api == "v2" else "database"
        secret = config.token_file or config.password_file or "no token_file is configured"
        advice = {
            401: f"the token or password is not accepted: see {secret}",
            403: f"it may not write to {what} {config.bucket!r}: see {secret}",
            404: f'is there a {what} {config.bucket!r}, and is api = "{config.api}" right? Its owner must create it',
        }.get(status, f"is this InfluxDB, and is the URL right for {what} {config.bucket!r}?")
        return StoreMisconfiguredError(f"{said}; {advice}", retry_after=answer.retry_after)

    def _letters(self, lines: Lines, starts: NDArray[np.intp], refused: dict[int, str]) -> Sequence[DeadLetter]:
        """One letter for each signal and reason."""
        groups: dict[tuple[int, tuple[str, str], str], list[int]] = {}
        for line, reason in refused.items():
            index = int(lines.signal[line])
            about = lines.about.get(line, ("", ""))
            if index >= 0:
                key = self._signals[index]
                about = (key.place.path, key.name)
            groups.setdefault((index, about, reason), []).append(line)
        letters = []
        for (index, (machine, signal), reason), members in groups.items():
            times = lines.time[members]
            letters.append(
                DeadLetter(
                    store=self.name,
                    machine=machine,
                    signal=signal,
                    readings=len(members),
                    reason=reason,
                    first=int(times.min()),
                    last=int(times.max()),
                    body=b"".join(lines.body[starts[i] : starts[i + 1]] for i in members),
                    counts={index: len(members)} if index >= 0 else {},
                )
            )
        return letters


def _starts(lines: Lines) -> NDArray[np.intp]:
    """Where each line starts, and where the last one ends, (n + 1,)."""
    feeds = np.flatnonzero(np.frombuffer(lines.body, np.uint8) == ord("\n"))
    return np.concatenate([[0], feeds + 1])


def _without(lines: Lines, starts: NDArray[np.intp], left_out: dict[int, str]) -> Lines:
    """The other lines."""
    kept = [i for i in range(len(lines)) if i not in left_out]
    about = {at: lines.about[i] for at, i in enumerate(kept) if i in lines.about}
    body = b"".join(lines.body[starts[i] : starts[i + 1]] for i in kept)
    return Lines(body, lines.signal[kept], lines.time[kept], about)
