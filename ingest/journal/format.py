"""Records to bytes and back. The format is written down in README.md beside this file."""

import struct
from collections.abc import Sequence
from typing import Any

import google_crc32c
import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import (
    ActionRow,
    AgentRow,
    Batch,
    ChartPoint,
    Control,
    Finding,
    Gap,
    LedgerRow,
    MachineEvent,
    MachineState,
    PartEvent,
    Record,
    RecordKind,
    SignalInfo,
    Verdict,
)
from fieldlab.model.record import Row

FORMAT = 1
_HEADER = struct.Struct("<2sBBI")
_SECTION = struct.Struct("<II")
_U32 = struct.Struct("<I")
_TICK = struct.Struct("<q")
_MAGIC = b"FJ"

_DECODERS: dict[RecordKind, msgspec.json.Decoder[list[Row]]] = {
    RecordKind.FINDING: msgspec.json.Decoder(list[Finding]),
    RecordKind.PART: msgspec.json.Decoder(list[PartEvent | Verdict]),
    RecordKind.CONTROL: msgspec.json.Decoder(list[Control]),
    RecordKind.CHART: msgspec.json.Decoder(list[ChartPoint]),
    RecordKind.SIGNAL: msgspec.json.Decoder(list[SignalInfo]),
    RecordKind.MACHINE_STATE: msgspec.json.Decoder(list[MachineState]),
    RecordKind.LEDGER: msgspec.json.Decoder(list[LedgerRow]),
    RecordKind.AGENT: msgspec.json.Decoder(list[AgentRow]),
    RecordKind.GAP: msgspec.json.Decoder(list[Gap]),
    RecordKind.EVENT: msgspec.json.Decoder(list[MachineEvent]),
    RecordKind.ACTION: msgspec.json.Decoder(list[ActionRow]),
}
_READINGS = frozenset({RecordKind.READINGS, RecordKind.BACKFILL})


class DamagedRecordError(ValueError):
    """A record's bytes are not what was written."""


class Messages(msgspec.Struct, frozen=True, eq=False):
    """Messages of one session whose readings a record holds: ids (m,) u16 and hashes (m,) u64."""

    session: str
    ids: NDArray[np.uint16]
    hashes: NDArray[np.uint64]


class Extras(msgspec.Struct, frozen=True, eq=False):
    """What a record of readings holds besides the readings.

    Attributes:
        moved_row: rows whose time was moved on, (k,) u32.
        moved_by: by how many nanoseconds, (k,) u32.
        counts: signal, duplicate, rejected, overflow, (m, 4) u32.
        messages: where the readings came from.
    """

    moved_row: NDArray[np.uint32] = np.empty(0, np.uint32)
    moved_by: NDArray[np.uint32] = np.empty(0, np.uint32)
    counts: NDArray[np.uint32] = np.empty((0, 4), np.uint32)
    messages: tuple[Messages, ...] = ()


def encode_readings(kind: RecordKind, batch: Batch, extras: Extras) -> bytes:
    """The bytes of a record of readings."""
    texts = [text.encode("utf-8", "replace") for text in batch.text]
    sections: list[tuple[int, bytes]] = [
        (1, _bytes(batch.signal, "<u4")),
        (2, _bytes(batch.time, "<i8")),
        (3, _bytes(batch.value, "<f8")),
    ]
    if batch.status.any():
        sections.append((4, _bytes(batch.status, "<u4")))
    if texts:
        lengths = np.array([len(text) for text in texts], np.uint32)
        sections += [(5, _bytes(batch.text_row, "<u4")), (6, lengths.tobytes()), (7, b"".join(texts))]
    if len(batch.integer):
        sections += [(8, _bytes(batch.integer_row, "<u4")), (9, _bytes(batch.integer, "<i8"))]
    if len(extras.moved_row):
        sections += [(10, _bytes(extras.moved_row, "<u4")), (11, _bytes(extras.moved_by, "<u4"))]
    if len(extras.counts):
        sections.append((12, _bytes(extras.counts, "<u4")))
    for m in extras.messages:
        name = m.session.encode()
        head = _U32.pack(len(name)) + name + _U32.pack(len(m.ids))
        sections.append((13, head + _bytes(m.ids, "<u2") + _bytes(m.hashes, "<u8")))
    return _seal(kind, b"".join(_SECTION.pack(t, len(b)) + b + bytes(-len(b) % 8) for t, b in sections))


def encode_rows(kind: RecordKind, rows: Sequence[Row]) -> bytes:
    """The bytes of a record of rows.

    Raises:
        ValueError: if they could not be read again: JSON has no NaN, infinity or lone surrogate.
    """
    body = msgspec.json.encode(rows)
    try:
        _DECODERS[kind].decode(body)  # seldom and small, unlike readings
    except msgspec.MsgspecError as e:
        raise ValueError(f"a row of kind {kind.name} cannot be kept: {e}") from e
    return _seal(kind, body)


def encode_tick(time: int) -> bytes:
    """The bytes of a tick."""
    return _seal(RecordKind.TICK, _TICK.pack(time))


def decode(position: int, time: int, data: bytes) -> Record:
    """A record from its bytes.

    Raises:
        DamagedRecordError: if they are not a record of a known version, or the CRC differs.
    """
    kind = check(data)
    body = memoryview(data)[_HEADER.size :]
    try:
        if kind in _READINGS:
            return Record(position, kind, time, batch=_decode_batch(_sections(body)))
        if kind is RecordKind.TICK:
            return Record(position, kind, _TICK.unpack(body)[0])
        return Record(position, kind, time, rows=tuple(_DECODERS[kind].decode(body)))
    except (ValueError, KeyError, struct.error, msgspec.MsgspecError) as e:
        raise DamagedRecordError(f"record {position} cannot be read: {e}") from e


def decode_extras(data: bytes) -> Extras:
    """What a record of readings holds besides the readings; `data` was checked before.

    Raises:
        DamagedRecordError: if its sections make no sense.
    """
    try:
        found = _sections(memoryview(data)[_HEADER.size :])
        if not found.keys() & {10, 12, 13}:
            return Extras()
        return Extras(
            _column(found, 10, "<u4"),
            _column(found, 11, "<u4"),
            _column(found, 12, "<u4").reshape(-1, 4),
            tuple(_decode_messages(section) for section in found.get(13, [])),
        )
    except (ValueError, struct.error) as e:
        raise DamagedRecordError(f"a record's extras cannot be read: {e}") from e


def check(data: bytes) -> RecordKind:
    """The kind of a record whose bytes are whole.

    Raises:
        DamagedRecordError: if they are not.
    """
    if len(data) < _HEADER.size:
        raise DamagedRecordError("a record is shorter than its header")
    magic, version, kind, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != FORMAT:
        raise DamagedRecordError(
            f"a record starts with {magic!r}, version {version}; this program reads version {FORMAT}"
        )
    if crc != google_crc32c.extend(google_crc32c.value(data[3:4]), data[_HEADER.size :]):
        raise DamagedRecordError("a record's CRC32C differs")
    try:
        return RecordKind(kind)
    except ValueError:
        raise DamagedRecordError(f"a record has the unknown kind {kind}") from None


def _bytes(column: NDArray[np.generic], dtype: str) -> bytes:
    """A column as the format has it, whatever its maker chose."""
    return column.astype(dtype, copy=False).tobytes()


def _seal(kind: RecordKind, body: bytes) -> bytes:
    crc = google_crc32c.extend(google_crc32c.value(bytes([kind])), body)
    return _HEADER.pack(_MAGIC, FORMAT, kind, crc) + body


def _sections(body: memoryview) -> dict[int, list[memoryview]]:
    found: dict[int, list[memoryview]] = {}
    at = 0
    while at < len(body):
        tag, length = _SECTION.unpack_from(body, at)
        at += _SECTION.size
        if at + length > len(body):
            raise ValueError(f"section {tag} is cut short")
        found.setdefault(tag, []).append(body[at : at + length])
        at += length + -length % 8
    return found


def _column(found: dict[int, list[memoryview]], tag: int, dtype: str) -> NDArray[Any]:
    return np.frombuffer(found[tag][0] if tag in found else b"", dtype)


def _decode_batch(found: dict[int, list[memoryview]]) -> Batch:
    signal = _column(found, 1, "<u4")
    ends = np.cumsum(_column(found, 6, "<u4"), dtype=np.int64).tolist()
    blob = bytes(found[7][0]) if 7 in found else b""
    batch = Batch(
        signal,
        _column(found, 2, "<i8"),
        _column(found, 3, "<f8"),
        _column(found, 4, "<u4") if 4 in found else np.zeros(len(signal), np.uint32),
        _column(found, 5, "<u4"),
        tuple(blob[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=False)),
        _column(found, 8, "<u4"),
        _column(found, 9, "<i8"),
    )
    batch.check()
    return batch


def _decode_messages(section: memoryview) -> Messages:
    (length,) = _U32.unpack_from(section)
    at = _U32.size + length
    (count,) = _U32.unpack_from(section, at)
    ids = np.frombuffer(section, np.uint16, count, at + _U32.size)
    hashes = np.frombuffer(section, np.uint64, count, at + _U32.size + ids.nbytes)
    return Messages(bytes(section[_U32.size : at]).decode(), ids, hashes)


def split(batch: Batch, extras: Extras, most: int) -> list[tuple[Batch, Extras]]:
    """Several records' batches and extras, of at most `most` readings each, in order."""
    if len(batch) <= most:
        return [(batch, extras)]
    pieces = []
    for start in range(0, len(batch), most):
        stop = min(start + most, len(batch))
        within = (extras.moved_row >= start) & (extras.moved_row < stop)
        part = Extras(extras.moved_row[within] - np.uint32(start), extras.moved_by[within])
        if start == 0:
            part = msgspec.structs.replace(part, counts=extras.counts, messages=extras.messages)
        pieces.append((batch.take(np.arange(start, stop)), part))
    return pieces
