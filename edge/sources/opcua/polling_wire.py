"""The bytes of polling: values as the server sent them, and the notification that they are made into.

asyncua's datetime is coarser than OPC UA's 100 ns, so the bytes are kept.
"""

import struct
from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.session import PublishSession
from edge.sources.opcua.wire import Cursor, DecodeError

_NONE: Final = b"\xff\xff\xff\xff"  # an absent array
# Numbers of the binary encodings: NodeIds.csv of the OPC Foundation.
_READ_RESPONSE, _PUBLISH_RESPONSE, _DATA_CHANGE = 634, 829, 811


async def read_encoded(
    session: PublishSession,
    nodes: Sequence[ua.NodeId],
    attribute: AttributeIds = AttributeIds.Value,
    ranges: Sequence[str] | None = None,
) -> list[bytes]:
    """The value, or another attribute, of each node as the bytes of its DataValue, with the source's time alone.

    Args:
        session: an open session.
        nodes: whose.
        attribute: which.
        ranges: which part of each array; the whole where it is empty.

    Raises:
        uaerrors.UaError: if the server refuses the call, or its answer cannot be read.
    """
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Source
    request.Parameters.NodesToRead = [
        ua.ReadValueId(NodeId=node, AttributeId=attribute, IndexRange=part or None)
        for node, part in zip(nodes, ranges or [""] * len(nodes), strict=True)
    ]
    body = bytes(await session._send_request(request))  # noqa: SLF001  asyncua has no public way to the bytes
    cursor = Cursor(body)
    found = []
    try:
        if cursor.node_id() != (0, _READ_RESPONSE):
            raise uaerrors.BadUnknownResponse
        cursor.skip(8 + 4 + 4)  # timestamp, request handle, service result
        cursor.skip_diagnostic()
        for _ in range(cursor.count(4)):
            cursor.raw()
        cursor.skip_extension_object()
        for _ in range(cursor.count(1)):
            start = cursor.pos
            cursor.skip_data_value()
            found.append(body[start : cursor.pos])
    except (DecodeError, struct.error, ValueError, OverflowError) as e:
        raise uaerrors.BadDecodingError from e
    return found


def status_of(value: bytes) -> int:
    """The StatusCode of an encoded DataValue, OPC 10000-6, 5.2.2.17."""
    cursor = Cursor(value)
    mask = cursor.u8()
    if mask & 0x01:
        cursor.skip_variant()
    return cursor.u32() if mask & 0x02 else 0


def as_notification(sequence: int, items: list[tuple[int, bytes]]) -> bytes:
    """The bytes of a PublishResponse with one DataChangeNotification of (client handle, DataValue)."""
    changes = b"".join(struct.pack("<I", handle) + value for handle, value in items)
    inner = struct.pack("<i", len(items)) + changes + _NONE
    return b"".join(
        (
            b"\x01\x00" + struct.pack("<H", _PUBLISH_RESPONSE),
            bytes(8 + 4 + 4 + 1) + _NONE + bytes(3),  # header: no diagnostics, no strings, nothing additional
            struct.pack("<I", 0) + _NONE + b"\0",  # subscription, available numbers, more notifications
            struct.pack("<Iqi", sequence, 0, 1),
            b"\x01\x00" + struct.pack("<H", _DATA_CHANGE) + b"\x01" + struct.pack("<i", len(inner)) + inner,
            _NONE + _NONE,  # results, diagnostics
        )
    )
