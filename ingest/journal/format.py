"""Records to bytes and back. The format is written down in README.md beside this file."""

import struct
from collections.abc import Sequence

import google_crc32c
import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import (
    AgentRow,
    Batch,
    ChartPoint,
    Control,
    Finding,
    LedgerRow,
    MachineState,
    PartEvent,
    Record,
    RecordKind,
    SignalInfo,
    Verdict,
    concat,
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
        (1, batch.signal.tobytes()),
        (2, batch.time.tobytes()),
        (3, batch.value.tobytes()),
    ]
    if batch.status.any():
        sections.append((4, batch.status.tobytes()))
    if texts:
        lengths = np.array([len(text) for text in texts], np.uint32)
        sections += [(5, batch.text_row.tobytes()), (6, lengths.tobytes()), (7, b"".join(texts))]
    if len(batch.integer):
        sections += [(8, batch.integer_row.tobytes()), (9, batch.integer.tobytes())]
    if len(extras.moved_row):
        sections += [(10, extras.moved_row.tobytes()), (11, extras.moved_by.tobytes())]
    if len(extras.counts):
        sections.append((12, extras.counts.tobytes()))
    for m in extras.messages:
        name = m.session.encode()
        head = _U32.pack(len(name)) + name + _U32.pack(len(m.ids))
        sections.append((13, head + m.ids.tobytes() + m.hashes.tobytes()))
    return _seal(kind, b"".join(_SECTION.pack(t, len(b)) + b + bytes(-len(b) % 8) for t, b in sections))


def encode_rows(kind: RecordKind, rows: Sequence[Row]) -> bytes:
    """The bytes of a record of rows."""
    return _seal(kind, msgspec.json.encode(rows))


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
    """What a record of readings holds besides the readings; `data` was checked before."""
    found = _sections(memoryview(data)[_HEADER.size :])
    if not found.keys() & {10, 12, 13}:
        return Extras()
    empty = [memoryview(b"")]
    return Extras(
        np.frombuffer(found.get(10, empty)[0], np.uint32),
        np.frombuffer(found.get(11, empty)[0], np.uint32),
        np.frombuffer(found.get(12, empty)[0], np.uint32).reshape(-1, 4),
        tuple(_decode_messages(section) for section in found.get(13, [])),
    )


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


def _seal(kind: RecordKind, body: bytes) -> bytes:
    crc = google_crc32c.extend(google_crc32c.value(bytes([kind])), body)
    return _HEADER.pack(_MAGIC, FORMAT, kind, crc) + body


def _sections(body: memoryview) -> dict[int, list[memoryview]]:
    found: dict[int, list[memoryview]] = {}
    at = 0
    while at < len(body):
        tag, length = _SECTION.unpack_from(body, at)
        at += _SECTION.size
        found.setdefault(tag, []).append(body[at : at + length])
        at += length + -length % 8
    return found


def _decode_batch(found: dict[int, list[memoryview]]) -> Batch:
    empty = [memoryview(b"")]
    signal = np.frombuffer(found[1][0], np.uint32)
    lengths = np.frombuffer(found.get(6, empty)[0], np.uint32)
    blob = bytes(found.get(7, empty)[0])
    ends = np.cumsum(lengths).tolist()
    texts = tuple(blob[a:b].decode() for a, b in zip([0, *ends[:-1]], ends, strict=False))
    return Batch(
        signal,
        np.frombuffer(found[2][0], np.int64),
        np.frombuffer(found[3][0], np.float64),
        np.frombuffer(found[4][0], np.uint32) if 4 in found else np.zeros(len(signal), np.uint32),
        np.frombuffer(found.get(5, empty)[0], np.uint32),
        texts,
        np.frombuffer(found.get(8, empty)[0], np.uint32),
        np.frombuffer(found.get(9, empty)[0], np.int64),
    )


def _decode_messages(section: memoryview) -> Messages:
    (length,) = _U32.unpack_from(section)
    at = _U32.size + length
    (count,) = _U32.unpack_from(section, at)
    ids = np.frombuffer(section, np.uint16, count, at + _U32.size)
    hashes = np.frombuffer(section, np.uint64, count, at + _U32.size + ids.nbytes)
    return Messages(bytes(section[_U32.size : at]).decode(), ids, hashes)


def join(parts: Sequence[tuple[Batch, Extras]]) -> tuple[Batch, Extras]:
    """One record's batch and extras from those of several appends, in order."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(batch) for batch, _ in parts[:-1])]).astype(np.uint32)
    return concat([batch for batch, _ in parts]), Extras(
        np.concatenate([e.moved_row + start for (_, e), start in zip(parts, starts, strict=True)]),
        np.concatenate([e.moved_by for _, e in parts]),
        np.concatenate([e.counts for _, e in parts]),
        tuple(messages for _, e in parts for messages in e.messages),
    )
