"""OPC UA Binary (OPC 10000-6, 5.2): a cursor over bytes that reads what a PublishResponse holds, and skips the rest.

asyncua's own decoder is not used on readings: it cuts timestamps to microseconds, takes the picoseconds of a DataValue
in another order than 5.2.2.17, and costs 8 µs a value.
"""

import base64
import struct
import uuid
from typing import Final

EPOCH_TICKS: Final = 116_444_736_000_000_000  # 1970 in 100 ns since 1601
MAX_TICKS: Final = EPOCH_TICKS + (2**63 - 1) // 100  # the year 2262: the last that fits 64 bits of nanoseconds
AHEAD_TICKS: Final = 24 * 3600 * 10_000_000  # a source time further ahead of its arrival than a day is kept aside
LAST_DATETIME: Final = 2_650_467_743_990_000_000  # 9999-12-31T23:59:59, OPC 10000-6, 5.2.2.5
_MAX_DEPTH: Final = 32

_U16 = struct.Struct("<H")
_I32 = struct.Struct("<i")
_U32 = struct.Struct("<I")
_I64 = struct.Struct("<q")


class DecodeError(Exception):
    """Bytes that are not what OPC UA Binary says."""


class Cursor:
    """A place in `data`. Every method raises `struct.error` or `DecodeError` when the bytes run out."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data) if end is None else end

    def skip(self, size: int) -> int:
        """Move on by `size` bytes; returns where it was."""
        pos = self.pos
        if size < 0 or pos + size > self.end:
            raise DecodeError(f"{size} bytes wanted at {pos}, {self.end - pos} left")
        self.pos = pos + size
        return pos

    def u8(self) -> int:
        """Byte."""
        return self.data[self.skip(1)]

    def u16(self) -> int:
        """UInt16."""
        value: int = _U16.unpack_from(self.data, self.skip(2))[0]
        return value

    def i32(self) -> int:
        """Int32."""
        value: int = _I32.unpack_from(self.data, self.skip(4))[0]
        return value

    def u32(self) -> int:
        """UInt32."""
        value: int = _U32.unpack_from(self.data, self.skip(4))[0]
        return value

    def expect(self, wanted: int) -> None:
        """A UInt32 that must be `wanted`."""
        found = self.u32()
        if found != wanted:
            raise DecodeError(f"{found} at {self.pos - 4}, not {wanted}")

    def i64(self) -> int:
        """Int64; also the ticks of a DateTime."""
        value: int = _I64.unpack_from(self.data, self.skip(8))[0]
        return value

    def count(self, least: int) -> int:
        """The length of an array whose elements take `least` bytes or more; a null array has none."""
        found = self.i32()
        if found == -1:
            return 0
        if found < 0 or found * least > self.end - self.pos:
            raise DecodeError(f"an array of {found} elements at {self.pos}, {self.end - self.pos} bytes left")
        return found

    def raw(self) -> bytes | None:
        """ByteString, or the bytes of a String."""
        size = self.i32()
        if size == -1:
            return None
        pos = self.skip(size)
        return self.data[pos : pos + size]

    def text(self) -> str:
        """String; a null one is empty. Bytes that are not UTF-8 become the replacement character."""
        return (self.raw() or b"").decode("utf-8", "replace")

    def node_id_text(self) -> str:
        """A NodeId or ExpandedNodeId as OPC 10000-6, 5.3.1.10 writes it, such as `ns=2;s=Load`."""
        encoding = self.u8()
        kind = encoding & 0x3F
        namespace = 0 if kind == 0 else self.u8() if kind == 1 else self.u16()
        if kind in (0, 1, 2):
            text = f"i={self.u8() if kind == 0 else self.u16() if kind == 1 else self.u32()}"
        elif kind == 3:
            text = f"s={self.text()}"
        elif kind == 4:
            pos = self.skip(16)
            text = f"g={uuid.UUID(bytes_le=self.data[pos : pos + 16])}"
        elif kind == 5:
            text = f"b={base64.b64encode(self.raw() or b'').decode()}"
        else:
            raise DecodeError(f"NodeId encoding {encoding:#x} at {self.pos}")
        where = f"ns={namespace};" if namespace else ""
        if encoding & 0x80:
            where = f"nsu={self.text().replace('%', '%25').replace(';', '%3B')};"
        server = f"svr={self.u32()};" if encoding & 0x40 else ""
        return server + where + text

    def node_id(self) -> tuple[int, int | None]:
        """(namespace index, number) of a NodeId or ExpandedNodeId; the number is None if it is not numeric."""
        encoding = self.u8()
        kind = encoding & 0x3F
        namespace, number = 0, None
        if kind == 0:
            number = self.u8()
        elif kind == 1:
            namespace, number = self.u8(), self.u16()
        elif kind == 2:
            namespace, number = self.u16(), self.u32()
        elif kind in (3, 5):
            namespace = self.u16()
            self.raw()
        elif kind == 4:
            namespace = self.u16()
            self.skip(16)
        else:
            raise DecodeError(f"NodeId encoding {encoding:#x} at {self.pos - 1}")
        if encoding & 0x80:
            self.raw()
        if encoding & 0x40:
            self.u32()
        return namespace, number

    def extension_object(self) -> tuple[tuple[int, int | None], int]:
        """(type, where its body ends); the cursor stands at the body."""
        kind = self.node_id()
        encoding = self.u8()
        if encoding == 0:
            return kind, self.pos
        if encoding > 2:
            raise DecodeError(f"ExtensionObject encoding {encoding} at {self.pos - 1}")
        size = max(self.i32(), 0)
        if self.pos + size > self.end:
            raise DecodeError(f"an ExtensionObject of {size} bytes at {self.pos}, {self.end - self.pos} left")
        return kind, self.pos + size

    def skip_extension_object(self) -> None:
        """Move behind an ExtensionObject."""
        _, self.pos = self.extension_object()

    def skip_diagnostic(self, depth: int = 0) -> None:
        """Move behind a DiagnosticInfo."""
        _bound(depth)
        mask = self.u8()
        for bit in (0x01, 0x02, 0x08, 0x04):
            if mask & bit:
                self.i32()
        if mask & 0x10:
            self.raw()
        if mask & 0x20:
            self.u32()
        if mask & 0x40:
            self.skip_diagnostic(depth + 1)

    def localized_text(self) -> str:
        """The text of a LocalizedText."""
        mask = self.u8()
        if mask & 0x01:
            self.raw()
        return self.text() if mask & 0x02 else ""

    def qualified_name(self) -> str:
        """The name of a QualifiedName."""
        self.u16()
        return self.text()

    def skip_data_value(self, depth: int = 0) -> None:
        """Move behind a DataValue."""
        _bound(depth)
        mask = self.u8()
        if mask & 0x01:
            self.skip_variant(depth + 1)
        for bit, size in ((0x02, 4), (0x04, 8), (0x10, 2), (0x08, 8), (0x20, 2)):
            if mask & bit:
                self.skip(size)

    def skip_variant(self, depth: int = 0) -> None:
        """Move behind a Variant."""
        _bound(depth)
        encoding = self.u8()
        kind = encoding & 0x3F
        if not encoding & 0x80:
            self.skip_value(kind, depth)
            return
        size = FIXED_SIZES.get(kind, 0)
        if size:
            self.skip(self.count(size) * size)
        else:
            for _ in range(self.count(1)):
                self.skip_value(kind, depth)
        if encoding & 0x40:
            self.skip(self.count(4) * 4)

    def skip_value(self, kind: int, depth: int = 0) -> None:
        """Move behind one value of builtin type `kind`."""
        size = FIXED_SIZES.get(kind)
        if size is not None:
            self.skip(size)
        elif kind in (17, 18):
            self.node_id()
        elif kind == 20:
            self.qualified_name()
        elif kind == 21:
            self.localized_text()
        elif kind == 22:
            self.skip_extension_object()
        elif kind == 23:
            self.skip_data_value(depth + 1)
        elif kind == 24:
            self.skip_variant(depth + 1)
        elif kind == 25:
            self.skip_diagnostic(depth + 1)
        elif kind in (12, 15, 16) or 26 <= kind <= 31:  # the reserved ones count as ByteString, 5.2.2.16
            self.raw()
        else:
            raise DecodeError(f"builtin type {kind} at {self.pos}")


# Builtin type → bytes, OPC 10000-6, 5.1.2.
FIXED_SIZES: Final = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4}


def _bound(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise DecodeError("values nested too deep")


def datetime_to_seconds(ticks: int) -> float:
    """Seconds since 1970 of a DateTime, clamped to the range of 5.2.2.5."""
    return (min(max(ticks, 0), LAST_DATETIME) - EPOCH_TICKS) / 1e7


def latest(arrival: int) -> int:
    """The last source time, in ticks, that a reading which arrived at `arrival` (ns) can have: a day ahead of it."""
    return min(arrival // 100 + EPOCH_TICKS + AHEAD_TICKS, MAX_TICKS)


def usable(ticks: int, last: int = MAX_TICKS) -> bool:
    """Whether a timestamp can be a reading's: from 1970 to `last`. Servers without a clock send 1601."""
    return EPOCH_TICKS <= ticks <= last


def to_ns(ticks: int, picoseconds: int = 0) -> int:
    """Nanoseconds since 1970; `picoseconds` counts 10 ps, as in a DataValue."""
    return (ticks - EPOCH_TICKS) * 100 + min(picoseconds, 9999) // 100
