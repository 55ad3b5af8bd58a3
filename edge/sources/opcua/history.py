"""HistoryRead of raw values (OPC 10000-11, 6.5.3): in bounded calls, with continuation points, into columns.

The bytes are read by the decoder of the live readings, so that a value of history has the same time to the nanosecond,
the same value and the same status as the notification that never came: a store takes it for the same point.
"""

import asyncio
import contextlib
import datetime as dt
import struct
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec
import numpy as np
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import get_name_and_doc
from numpy.typing import NDArray

from edge.sources.opcua.browse import CallLimits, plain, read_values
from edge.sources.opcua.columns import Columns, Opaque, join
from edge.sources.opcua.decode import UndecodableError, decode
from edge.sources.opcua.polling_wire import as_notification
from edge.sources.opcua.uniform import NO_VALUE, layout, read_rows
from edge.sources.opcua.wire import Cursor, DecodeError

# Numbers of the binary encodings, and of variables: NodeIds.csv of the OPC Foundation.
_HISTORY_READ_RESPONSE: Final = 667
_HISTORY_DATA: Final = 658
_MAX_NODES: Final = ua.NodeId(ua.Int32(12165))  # OperationLimits.MaxNodesPerHistoryReadData
_MAX_READ: Final = ua.NodeId(ua.Int32(11705))  # OperationLimits.MaxNodesPerRead; some servers mean history as well
_MAX_VALUES: Final = ua.NodeId(ua.Int32(11273))  # HistoryServerCapabilities.MaxReturnDataValues
_MAY_READ: Final = 0x04  # bit HistoryRead of AccessLevel, OPC 10000-3, 8.57

_VALUES_PER_CALL: Final = 5000  # text is read one by one: more would hold up the live readings
_NODES_PER_CALL: Final = 100
_EMPTY_ANSWERS: Final = 100  # one after the other, with a continuation point: the server gets nowhere
_RELEASE_WITHIN: Final = 2.0  # s

# Of the InfoBits of a value of history (OPC 10000-4, 7.39.1; OPC 10000-11, 6.3.3).
_INFO_TYPE: Final = np.uint32(0x0C00)
_IS_DATA: Final = np.uint32(0x0400)
_NOT_RAW: Final = np.uint32(0x0003)  # calculated or interpolated
_LIMITS: Final = np.uint32(0x0300)
_OF_HISTORY: Final = np.uint32(0x009F)  # the historian's bits, and Overflow
# A value with one of these says that history has a hole there: BadNoData, BadDataLost, BadDataUnavailable.
_HOLES: Final = np.array([0x809B0000, 0x809D0000, 0x809E0000], np.uint32)
_NO_BOUND: Final = np.uint32(0x80D70000)  # BadBoundNotFound
_BAD_NO_CONTINUATION_POINTS: Final = 0x804B0000
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NEVER: Final = dt.datetime(1601, 1, 1, tzinfo=dt.UTC)  # "not given"
_MS: Final = 1_000_000


class HistoryLimits(msgspec.Struct, frozen=True):
    """How much one call may ask for.

    Attributes:
        nodes: nodes.
        values: values of one node.
    """

    nodes: int = _NODES_PER_CALL
    values: int = _VALUES_PER_CALL


class Answer(msgspec.Struct, frozen=True, eq=False):
    """What a call brought of one node.

    Attributes:
        handle: its client handle.
        status: StatusCode of the node's result.
        columns: its values, in order of time, by client handle; None if there are none.
        more: whether another answer of this node follows.
        not_raw: values left out because the server had computed them.
        hole: whether the server says that its history is not whole here.
    """

    handle: int
    status: int
    columns: Columns | None = None
    more: bool = False
    not_raw: int = 0
    hole: bool = False


class _Part(msgspec.Struct, frozen=True, eq=False):
    """A HistoryReadResult: `count` DataValues in body[start:end]."""

    status: int
    point: bytes | None
    start: int = 0
    end: int = 0
    count: int = 0


async def read_limits(session: UaSession) -> HistoryLimits:
    """What the server says, and ours; 0, absent or nonsense means no limit of its own."""
    asked = [_MAX_NODES, _MAX_READ, _MAX_VALUES]
    found = [plain(v) for v in await session.read_attributes(asked, AttributeIds.Value)]
    nodes, read, values = (v if isinstance(v, int) and v > 0 else 1 << 31 for v in found)
    return HistoryLimits(min(nodes, read, _NODES_PER_CALL), min(values, _VALUES_PER_CALL))


async def readable(session: UaSession, nodes: Sequence[ua.NodeId], limits: CallLimits) -> list[bool]:
    """Of which nodes the server lets us read history, by their AccessLevel and UserAccessLevel."""
    asked = [(node, a) for node in nodes for a in (AttributeIds.AccessLevel, AttributeIds.UserAccessLevel)]
    found = [plain(value) for value in await read_values(session, asked, limits)]
    allowed = [isinstance(level, int) and bool(level & _MAY_READ) for level in found]
    return [node and user for node, user in zip(allowed[::2], allowed[1::2], strict=True)]


async def read_raw(
    session: UaSession,
    nodes: dict[int, ua.NodeId],
    start: int,
    end: int,
    limits: HistoryLimits,
) -> AsyncGenerator[list[Answer], None]:
    """Read what the server keeps of `nodes`, all of them in one call at a time.

    Close it (`contextlib.aclosing`) where you do not read to the end: it then gives the server's continuation points
    back.

    Args:
        session: an open session.
        nodes: client handle → node; at most `limits.nodes`.
        start: of the interval, ns; it is widened to whole milliseconds, as some servers compare no finer.
        end: likewise.
        limits: see there.

    Yields:
        The answers of each call, one for each node that it asked for.

    Raises:
        uaerrors.UaError: if the server refuses a call, or its answer cannot be read.
    """
    details = ua.ReadRawModifiedDetails(IsReadModified=False, ReturnBounds=False)
    details.StartTime = _EPOCH + dt.timedelta(milliseconds=start // _MS)
    # One beyond: without bounds the end itself is no part of the interval (OPC 10000-11, 6.5.3.2).
    details.EndTime = _EPOCH + dt.timedelta(milliseconds=end // _MS + 1)
    details.NumValuesPerNode = ua.UInt32(max(1, min(limits.values, _VALUES_PER_CALL // max(1, len(nodes)))))
    points: dict[int, bytes | None] = dict.fromkeys(nodes)
    starved: list[int] = []
    empty = 0
    try:
        while points:
            body = await _call(session, details, nodes, points)
            results = _results(body, len(points))
            asked = dict(zip(points, results, strict=True))
            points = {handle: part.point for handle, part in asked.items() if part.point}
            empty = 0 if any(part.count for part in results) else empty + 1
            hungry = {h for h, p in asked.items() if p.status == _BAD_NO_CONTINUATION_POINTS and len(nodes) > 1}
            starved += hungry
            yield [_answer(body, handle, part) for handle, part in asked.items() if handle not in hungry]
            if points and empty >= _EMPTY_ANSWERS:
                raise uaerrors.BadTooManyOperations
    finally:
        if any(points.values()):
            await _release(session, details, nodes, points)
    for handle in starved:  # the server ran out of continuation points: these alone, now that the others are read
        async with contextlib.aclosing(read_raw(session, {handle: nodes[handle]}, start, end, limits)) as answers:
            async for answer in answers:
                yield answer


async def reaches(session: UaSession, node: ua.NodeId, at: int) -> bool:
    """Whether the server's history has a value at `at`, ns, or before.

    Raises:
        uaerrors.UaError: if the server refuses the call, or its answer cannot be read.
    """
    details = ua.ReadRawModifiedDetails(IsReadModified=False, ReturnBounds=False)
    # The end alone, and a number: backwards from there (OPC 10000-11, 6.5.3.2).
    details.StartTime = _NEVER
    details.EndTime = _EPOCH + dt.timedelta(milliseconds=at // _MS)
    details.NumValuesPerNode = ua.UInt32(1)
    body = await _call(session, details, {0: node}, {0: None})
    (part,) = _results(body, 1)
    if part.point:
        await _release(session, details, {0: node}, {0: part.point})
    answer = _answer(body, 0, part)
    if part.status & 0x80000000 or answer.columns is None or not len(answer.columns.batch):
        return False
    return int(answer.columns.batch.time.min()) < (at // _MS + 1) * _MS


def status_name(status: int) -> str:
    """The name of a StatusCode, as the standard writes it."""
    return str(get_name_and_doc(status)[0])


async def _call(
    session: UaSession, details: ua.ReadRawModifiedDetails, nodes: dict[int, ua.NodeId], points: dict[int, bytes | None]
) -> bytes:
    request = _request(details, nodes, points, release=False)
    return bytes(await session._send_request(request))  # noqa: SLF001  asyncua has no public way to the bytes


async def _release(
    session: UaSession, details: ua.ReadRawModifiedDetails, nodes: dict[int, ua.NodeId], points: dict[int, bytes | None]
) -> None:
    """Give continuation points back; a server that does not answer forgets them with the session."""
    with contextlib.suppress(uaerrors.UaError, OSError, TimeoutError):
        request = _request(details, nodes, points, release=True)
        await asyncio.wait_for(session._send_request(request), _RELEASE_WITHIN)  # noqa: SLF001  as above


def _request(
    details: ua.ReadRawModifiedDetails,
    nodes: dict[int, ua.NodeId],
    points: dict[int, bytes | None],
    *,
    release: bool,
) -> ua.HistoryReadRequest:
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = details
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both  # as a monitored item
    request.Parameters.ReleaseContinuationPoints = release
    request.Parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=nodes[handle], ContinuationPoint=point) for handle, point in points.items()
    ]
    return request


def _results(body: bytes, wanted: int) -> list[_Part]:
    """The results of a HistoryReadResponse, OPC 10000-4, 5.11.3; their values are left where they are.

    Raises:
        uaerrors.UaError: if it cannot be read.
    """
    cursor = Cursor(body)
    try:
        if cursor.node_id() != (0, _HISTORY_READ_RESPONSE):
            raise uaerrors.BadUnknownResponse
        cursor.skip(8 + 4 + 4)  # timestamp, request handle, service result
        cursor.skip_diagnostic()
        for _ in range(cursor.count(4)):
            cursor.raw()
        cursor.skip_extension_object()
        found = [_result(cursor) for _ in range(cursor.count(11))]
    except (DecodeError, struct.error, ValueError, OverflowError) as e:
        raise uaerrors.BadDecodingError from e
    if len(found) != wanted:
        raise uaerrors.BadUnknownResponse
    return found


def _result(cursor: Cursor) -> _Part:
    status = cursor.u32()
    point = cursor.raw() or None
    kind, end = cursor.extension_object()
    count = 0
    if kind == (0, _HISTORY_DATA) and end > cursor.pos:
        count = Cursor(cursor.data, cursor.pos, end).count(1)
    part = _Part(status, point, cursor.pos + 4, end, count)
    cursor.pos = end
    return part


def _answer(body: bytes, handle: int, part: _Part) -> Answer:
    """The values of a result, as a live reading has them: without the bits that only history knows."""
    if not part.count:
        return Answer(handle, part.status, more=part.point is not None)
    try:
        columns = _columns(body, handle, part)
    except (UndecodableError, DecodeError, struct.error, ValueError, OverflowError) as e:
        raise uaerrors.BadDecodingError from e
    status = columns.batch.status
    data = (status & _INFO_TYPE) == _IS_DATA
    computed = data & ((status & _NOT_RAW) != 0)
    meaning = status & np.uint32(0xFFFF0000)
    hole = np.isin(meaning, _HOLES)
    drop = computed | hole | (meaning == _NO_BOUND)
    plainly = np.where(status & _LIMITS, status & ~_OF_HISTORY, status & ~(_OF_HISTORY | _INFO_TYPE))
    status = np.where(data, plainly, status).astype(np.uint32)
    columns = msgspec.structs.replace(columns, batch=msgspec.structs.replace(columns.batch, status=status))
    if drop.any():
        columns = _keep(columns, ~drop)
    if columns.opaque:
        columns = msgspec.structs.replace(columns, opaque=tuple(map(_as_live, columns.opaque)))
    return Answer(handle, part.status, columns, part.point is not None, int(computed.sum()), bool(hole.any()))


def _keep(columns: Columns, rows: NDArray[np.bool_]) -> Columns:
    element = None if columns.element is None else columns.element[rows]
    aside = None if columns.aside is None else columns.aside[rows]
    return msgspec.structs.replace(columns, batch=columns.batch.take(rows), element=element, aside=aside)


def _as_live(one: Opaque) -> Opaque:
    data = one.status & int(_INFO_TYPE) == int(_IS_DATA)
    bits = int(_OF_HISTORY) | (0 if one.status & int(_LIMITS) else int(_INFO_TYPE))
    return msgspec.structs.replace(one, status=one.status & ~bits) if data else one


def _columns(body: bytes, handle: int, part: _Part) -> Columns:
    """DataValues → columns: by numpy where all have one layout, else as a notification of many items."""
    arrival = time.time_ns()
    size = part.end - part.start
    mask = body[part.start]
    kind = body[part.start + 1] if mask & 0x01 else NO_VALUE
    form = layout(mask, kind)
    if form is not None and part.count * (form.itemsize - 4) == size:
        given = np.frombuffer(body, np.uint8, size, part.start).reshape(part.count, form.itemsize - 4)
        rows = np.empty(part.count, form)
        rows.view(np.uint8).reshape(part.count, form.itemsize)[:, 4:] = given
        rows["handle"] = handle
        # Each item of this mask and type has this size, so from the first on they lie where they are looked for.
        if (rows["mask"] == mask).all() and (kind == NO_VALUE or (rows["kind"] == kind).all()):
            return read_rows(rows, mask, kind, arrival)
    cursor = Cursor(body, part.start, part.end)
    values = []
    for _ in range(part.count):
        begin = cursor.pos
        cursor.skip_data_value()
        values.append((handle, body[begin : cursor.pos]))
    columns = decode(as_notification(1, values), arrival).columns
    return columns if columns is not None else join([])
