"""The ground truth: what was really sent, made and broken, as JSON lines.

Five types of line, times in ns UTC:

    {"type":"reading","place":"site/area/line/machine","signal":"diameter","ts":1,"value":25.0,"status":0}
        a reading that was sent: MQTT after its PUBACK, OPC UA after the write. Lines of one signal ascend in time;
        over MQTT, after a reconnect, they may not.
    {"type":"fault","id":"..","place":"..","signals":["diameter"],"kind":"tool_wear","start":1,"end":null,
     "first_part":"cnc-07-000041","severity":1.0}
        when a fault begins, and the same line with its `end` when it is repaired (or production ends).
    {"type":"part","place":"..","id":"cnc-07-000001","start":1,"end":2,"good":true,"why":"","dimensions":{"diameter":25.0}}
        when a part is finished: its true dimensions, unknown to any sensor.
    {"type":"habit","kind":"bad_storm","machine":"cnc-*","start":1,"end":2,"severity":1.0}
        what the protocol does wrong, told at the beginning.
    {"type":"digest","place":"..","signal":"diameter","start":0,"end":60000000000,"count":600,"hash":123}
        for long runs, instead of its readings: how many a minute, and the sum of their hashes.
"""

import hashlib
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from simulators.habits import Habit
from simulators.machines import FaultEvent, Part, Reading


class ReadingLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reading"):
    """A reading that was sent; with `arrival` without its time. Without a value if its status is Bad."""

    place: str
    signal: str
    ts: int
    value: float | str | None
    status: int = 0
    arrival: bool | msgspec.UnsetType = msgspec.UNSET


class FaultLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="fault"):
    """A fault that was injected; `end` is None while it lasts. `downstream`: place → signals that feel it there."""

    id: str
    place: str
    signals: tuple[str, ...]
    kind: str
    start: int
    end: int | None
    first_part: str
    severity: float
    downstream: dict[str, tuple[str, ...]] | msgspec.UnsetType = msgspec.UNSET


class PartLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="part"):
    """A part that was made."""

    place: str
    id: str
    start: int
    end: int
    good: bool
    why: str
    dimensions: dict[str, float]


class HabitLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="habit"):
    """A bad habit of the protocol, from `start` to `end` (None: never ends), ns UTC."""

    kind: str
    machine: str
    start: int
    end: int | None
    severity: float


class DigestLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="digest"):
    """Readings of a signal with `start` <= ts < `end`: how many, and the sum of their hashes; see `hash_of`.

    Several lines of one signal and window add up.
    """

    place: str
    signal: str
    start: int
    end: int
    count: int
    hash: int


Line = ReadingLine | FaultLine | PartLine | HabitLine | DigestLine
WINDOW = 60_000_000_000  # ns of a digest


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """A truth file.

    Attributes:
        readings: as written.
        faults: one for each id, with its end where it is known.
        parts: as written.
        habits: as written.
        digests: of signals whose readings were only counted.
    """

    readings: list[ReadingLine]
    faults: list[FaultLine]
    parts: list[PartLine]
    habits: list[HabitLine] = []
    digests: list[DigestLine] = []


def hash_of(ts: int, value: float | str | None, status: int) -> int:
    """A 64-bit hash of one reading, the same in every process: of its time, value (as Python writes it) and status."""
    return int.from_bytes(hashlib.blake2b(f"{ts}|{value!r}|{status}".encode(), digest_size=8).digest(), "big")


class TruthError(Exception):
    """A truth file cannot be read; the text names the file and the line."""


def read_truth(path: Path) -> Truth:
    """Read a truth file, also while it is being written: a last line that is not finished is left out.

    Raises:
        TruthError: if a finished line is not a line of truth.
        OSError: if the file cannot be read.
    """
    decoder = msgspec.json.Decoder(Line)
    truth = Truth(readings=[], faults=[], parts=[], habits=[], digests=[])
    faults: dict[tuple[str, str], FaultLine] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                break
            try:
                line = decoder.decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError) as e:
                raise TruthError(f"{path}:{number}: not a line of truth: {e}") from None
            if isinstance(line, ReadingLine):
                truth.readings.append(line)
            elif isinstance(line, PartLine):
                truth.parts.append(line)
            elif isinstance(line, HabitLine):
                truth.habits.append(line)
            elif isinstance(line, DigestLine):
                truth.digests.append(line)
            else:
                faults[line.place, line.id] = line
    truth.faults.extend(faults.values())
    return truth


class TruthWriter:
    """Writes a truth file; safe to use from several threads. Each call is one unbuffered write of whole lines.

    Args:
        path: the file, which is begun anew; None counts and writes nothing.
        digest: readings are not written one by one, but counted and hashed a minute: for long runs.

    Attributes:
        readings: how many were written; what was sent twice counts once.
        copies: how many were sent once more.
        parts: how many were written.
        bad: how many of those parts are bad.
        hash: the sum of the hashes of all readings with their signals: two runs with one hash sent the same.
    """

    def __init__(self, path: Path | None, *, digest: bool = False) -> None:
        self._file = path.open("wb", buffering=0) if path is not None else None
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        self._digest = digest
        self._windows: dict[tuple[str, str, int], list[int]] = {}
        self._newest: dict[str, int] = {}
        self.readings = 0
        self.copies = 0
        self.parts = 0
        self.bad = 0
        self.hash = 0

    def write_readings(self, place: str, readings: Iterable[Reading]) -> None:
        """Readings of one machine that were sent."""
        sent = list(readings)
        once = [r for r in sent if not r.copy]
        lines = [
            ReadingLine(
                place=place,
                signal=r.signal,
                ts=r.ts,
                value=None if r.status & 0x80000000 else r.value,
                status=r.status,
                arrival=msgspec.UNSET if r.timed else True,
            )
            for r in once
        ]
        with self._lock:
            self.readings += len(once)
            self.copies += len(sent) - len(once)
            for line in lines:
                self._add(line)
        self._write(self._finished(place) if self._digest else lines)

    def _add(self, line: ReadingLine) -> None:
        number = hash_of(line.ts, line.value, line.status)
        self.hash = (self.hash + number * (zlib.crc32(f"{line.place}/{line.signal}".encode()) * 2 + 1)) % 2**64
        if self._digest:
            window = self._windows.setdefault((line.place, line.signal, line.ts // WINDOW), [0, 0])
            window[0] += 1
            window[1] = (window[1] + number) % 2**64
            self._newest[line.place] = max(self._newest.get(line.place, 0), line.ts // WINDOW)

    def _finished(self, place: str, behind: int = 2) -> list[DigestLine]:
        """The windows of a place that are long over; a reading that comes later has a line of its own."""
        with self._lock:
            newest = self._newest.get(place, 0)
            over = [key for key in self._windows if key[0] == place and key[2] <= newest - behind]
            return [
                DigestLine(
                    place=key[0],
                    signal=key[1],
                    start=key[2] * WINDOW,
                    end=(key[2] + 1) * WINDOW,
                    count=count,
                    hash=total,
                )
                for key in over
                for count, total in [self._windows.pop(key)]
            ]

    def write_habits(self, habits: Iterable[Habit], begin: int) -> None:
        """What protocols are to do wrong in this run, which begins at `begin`, ns."""
        self._write(
            [
                HabitLine(
                    kind=h.kind,
                    machine=h.machine,
                    start=begin + h.start,
                    end=None if h.end is None else begin + h.end,
                    severity=h.severity,
                )
                for h in habits
            ]
        )

    def write_parts(self, place: str, parts: Iterable[Part]) -> None:
        """Parts of one machine that were finished."""
        lines = [
            PartLine(place=place, id=p.id, start=p.start, end=p.end, good=p.good, why=p.why, dimensions=p.dimensions)
            for p in parts
        ]
        self._write(lines)
        with self._lock:
            self.parts += len(lines)
            self.bad += sum(not line.good for line in lines)

    def write_faults(self, place: str, faults: Iterable[FaultEvent]) -> None:
        """Faults of one machine that began or ended."""
        self._write(
            [
                FaultLine(
                    id=f.id,
                    place=place,
                    signals=f.signals,
                    kind=f.kind,
                    start=f.start,
                    end=f.end,
                    first_part=f.first_part,
                    severity=f.severity,
                    downstream={f"{place.rpartition('/')[0]}/{name}": signals for name, signals in f.downstream}
                    or msgspec.UNSET,
                )
                for f in faults
            ]
        )

    def _write(self, lines: Sequence[Line]) -> None:
        if self._file is None or not lines:
            return
        data = self._encoder.encode_lines(lines)
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file; once is enough, twice is harmless."""
        for place in {key[0] for key in self._windows}:
            self._write(self._finished(place, behind=-1))
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
