"""The ground truth: what was really sent, made and broken, as JSON lines.

Three types of line, times in ns UTC:

    {"type":"reading","place":"site/area/line/machine","signal":"diameter","ts":1,"value":25.0,"status":0}
        a reading that was sent: MQTT after its PUBACK, OPC UA after the write. Lines of one signal ascend in time;
        over MQTT, after a reconnect, they may not.
    {"type":"fault","id":"..","place":"..","signals":["diameter"],"kind":"tool_wear","start":1,"end":null,
     "first_part":"cnc-07-000041","severity":1.0}
        when a fault begins, and the same line with its `end` when it is repaired (or production ends).
    {"type":"part","place":"..","id":"cnc-07-000001","start":1,"end":2,"good":true,"why":"","dimensions":{"diameter":25.0}}
        when a part is finished: its true dimensions, unknown to any sensor.
"""

import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from simulators.machines import FaultEvent, Part, Reading


class ReadingLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reading"):
    """A reading that was sent."""

    place: str
    signal: str
    ts: int
    value: float | str
    status: int = 0


class FaultLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="fault"):
    """A fault that was injected; `end` is None while it lasts."""

    id: str
    place: str
    signals: tuple[str, ...]
    kind: str
    start: int
    end: int | None
    first_part: str
    severity: float


class PartLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="part"):
    """A part that was made."""

    place: str
    id: str
    start: int
    end: int
    good: bool
    why: str
    dimensions: dict[str, float]


Line = ReadingLine | FaultLine | PartLine


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """A truth file.

    Attributes:
        readings: as written.
        faults: one for each id, with its end where it is known.
        parts: as written.
    """

    readings: list[ReadingLine]
    faults: list[FaultLine]
    parts: list[PartLine]


class TruthError(Exception):
    """A truth file cannot be read; the text names the file and the line."""


def read_truth(path: Path) -> Truth:
    """Read a truth file, also while it is being written: a last line that is not finished is left out.

    Raises:
        TruthError: if a finished line is not a line of truth.
        OSError: if the file cannot be read.
    """
    decoder = msgspec.json.Decoder(Line)
    truth = Truth(readings=[], faults=[], parts=[])
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
            else:
                faults[line.place, line.id] = line
    truth.faults.extend(faults.values())
    return truth


class TruthWriter:
    """Writes a truth file; safe to use from several threads. Each call is one unbuffered write of whole lines.

    Args:
        path: the file, which is begun anew; None counts and writes nothing.

    Attributes:
        readings: how many were written.
        parts: how many were written.
        bad: how many of those parts are bad.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("wb", buffering=0) if path is not None else None
        self._lock = threading.Lock()
        self._encoder = msgspec.json.Encoder()
        self.readings = 0
        self.parts = 0
        self.bad = 0

    def write_readings(self, place: str, readings: Iterable[Reading]) -> None:
        """Readings of one machine that were sent."""
        lines = [ReadingLine(place=place, signal=r.signal, ts=r.ts, value=r.value, status=r.status) for r in readings]
        self._write(lines)
        with self._lock:
            self.readings += len(lines)

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
                )
                for f in faults
            ]
        )

    def _write(self, lines: list[ReadingLine] | list[PartLine] | list[FaultLine]) -> None:
        if self._file is None or not lines:
            return
        data = self._encoder.encode_lines(lines)
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def close(self) -> None:
        """Close the file; once is enough, twice is harmless."""
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
