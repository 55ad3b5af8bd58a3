"""The raw body of a PublishResponse, or of a RepublishResponse, → columns: by numpy where items have equal layouts."""

import struct
import zlib
from typing import Final

import msgspec

from edge.sources.opcua.columns import Columns, join
from edge.sources.opcua.event_fields import EventFields, read_event_list
from edge.sources.opcua.gathered import read_gathered
from edge.sources.opcua.grouped import read_grouped
from edge.sources.opcua.repeats import Memory
from edge.sources.opcua.uniform import read_uniform
from edge.sources.opcua.walker import Walker
from edge.sources.opcua.wire import Cursor, DecodeError

# Numbers of the binary encodings: NodeIds.csv of the OPC Foundation.
_PUBLISH_RESPONSE: Final = 829
_REPUBLISH_RESPONSE: Final = 835
_DATA_CHANGE: Final = (0, 811)
_STATUS_CHANGE: Final = (0, 820)
_EVENTS: Final = (0, 916)

_PLAIN_IDS: Final = {wanted: struct.pack("<BBH", 1, 0, wanted) for wanted in (_PUBLISH_RESPONSE, _REPUBLISH_RESPONSE)}

# The end of a ResponseHeader without diagnostics, strings (null or empty) and additional header.
_PLAIN_HEADERS: Final = (b"\0\xff\xff\xff\xff\0\0\0", bytes(8))

# Below this many bytes the item by item reader is faster than numpy's fixed cost.
_SMALL = 256


class Published(msgspec.Struct, frozen=True, eq=False):
    """A PublishResponse.

    Attributes:
        subscription: its id; 0 if the session has none.
        sequence: the notification's number; of a keep-alive, the next one.
        keep_alive: whether it holds no notification, and so is not acknowledged.
        results: StatusCodes of the acknowledgements in the request.
        columns: the data changes, if there are any.
        events: the events, in order.
        status_change: the StatusCode of a StatusChangeNotification.
        ignored: notifications of other kinds.
        available: sequence numbers that the server keeps for Republish.
        digest: 64 bits of subscription, number and content: the same however often it is sent.
    """

    subscription: int
    sequence: int
    keep_alive: bool
    results: tuple[int, ...] = ()
    columns: Columns | None = None
    events: tuple[EventFields, ...] = ()
    status_change: int | None = None
    ignored: int = 0
    available: tuple[int, ...] = ()
    digest: int = 0


class UndecodableError(Exception):
    """A response that cannot be read.

    Attributes:
        subscription: whose it is; 0 if even that cannot be told.
        sequence: its number.
    """

    def __init__(self, message: str, subscription: int = 0, sequence: int = 0) -> None:
        super().__init__(message)
        self.subscription = subscription
        self.sequence = sequence


def decode(body: bytes, arrival: int, *, fast: bool = True, memory: Memory | None = None) -> Published:
    """Read a PublishResponse.

    Args:
        body: it, from its type id on.
        arrival: the time for readings without one, ns.
        fast: whether numpy may be used; tests and benchmarks say no.
        memory: of the subscription; with it a notification like the last is read faster.

    Raises:
        UndecodableError: if it cannot be read.
    """
    subscription = sequence = 0
    try:
        cursor = Cursor(body)
        _skip_header(cursor, _PUBLISH_RESPONSE)
        subscription = cursor.u32()
        available = _numbers(cursor)
        cursor.u8()  # more notifications
        sequence = cursor.u32()
        return _message(cursor, subscription, sequence, arrival, fast, memory, available)
    except (DecodeError, struct.error, ValueError, OverflowError) as e:
        raise UndecodableError(str(e), subscription, sequence) from e


def decode_again(body: bytes, arrival: int, subscription: int, sequence: int) -> Published:
    """Read a RepublishResponse, which holds a notification once more.

    Args:
        body: it, from its type id on.
        arrival: the time for readings without one, ns.
        subscription: whose notification was asked for.
        sequence: which.

    Raises:
        UndecodableError: if it cannot be read, or is another one.
    """
    try:
        cursor = Cursor(body)
        _skip_header(cursor, _REPUBLISH_RESPONSE)
        cursor.expect(sequence)
        return _message(cursor, subscription, sequence, arrival, fast=True)
    except (DecodeError, struct.error, ValueError, OverflowError) as e:
        raise UndecodableError(str(e), subscription, sequence) from e


def _message(
    cursor: Cursor,
    subscription: int,
    sequence: int,
    arrival: int,
    fast: bool,
    memory: Memory | None = None,
    available: tuple[int, ...] | None = None,
) -> Published:
    """The rest of a NotificationMessage, OPC 10000-4, 7.26, behind its number; of a PublishResponse the results too."""
    body = cursor.data
    cursor.i64()  # publish time
    start = cursor.pos
    parts: list[Columns] = []
    events: list[EventFields] = []
    status_change = None
    ignored = 0
    count = cursor.count(3)
    for _ in range(count):
        kind, end = cursor.extension_object()
        if kind == _DATA_CHANGE:
            parts.append(_data_change(body, cursor.pos, end, arrival, fast, memory))
        elif kind == _STATUS_CHANGE:
            status_change = cursor.u32()
        elif kind == _EVENTS:
            events += read_event_list(Cursor(body, cursor.pos, end))
        else:
            ignored += 1
        cursor.pos = end
    digest = 0
    if parts:
        # Against chance, not against people; two sums of one pass each are half of what a hash costs.
        content = memoryview(body)[start : cursor.pos]
        digest = zlib.crc32(content, sequence) | zlib.adler32(content, 1 + subscription % 65520) << 32
    return Published(
        subscription,
        sequence,
        count == 0,
        () if available is None else _numbers(cursor),
        join(parts) if parts else None,
        tuple(events),
        status_change,
        ignored,
        available or (),
        digest,
    )


def _numbers(cursor: Cursor) -> tuple[int, ...]:
    """An array of UInt32 or StatusCode."""
    count = cursor.count(4)
    return struct.unpack_from(f"<{count}I", cursor.data, cursor.skip(4 * count))


def _skip_header(cursor: Cursor, wanted: int) -> None:
    """The type id and the ResponseHeader, OPC 10000-4, 7.33. asyncua has raised its ServiceResult already."""
    if cursor.data[:4] == _PLAIN_IDS[wanted] and cursor.data[20:28] in _PLAIN_HEADERS:
        cursor.skip(28)
        return
    kind = cursor.node_id()
    if kind != (0, wanted):
        raise DecodeError(f"the answer is of type {kind}, not {wanted}")
    cursor.skip(8 + 4 + 4)  # timestamp, request handle, service result
    cursor.skip_diagnostic()
    for _ in range(cursor.count(4)):
        cursor.raw()
    cursor.skip_extension_object()


def _data_change(body: bytes, pos: int, end: int, arrival: int, fast: bool, memory: Memory | None) -> Columns:
    if not fast or end - pos < _SMALL:
        return Walker(arrival).read(Cursor(body, pos, end))
    columns = read_uniform(body, pos, end, arrival, memory)  # the fastest first: each knows what is its own
    if columns is None:
        columns = read_gathered(body, pos, end, arrival, memory)
    return read_grouped(body, pos, end, arrival) if columns is None else columns
