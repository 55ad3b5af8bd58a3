"""Values that are made of others → one reading a field: structures, unions and what is nested in them.

Decoded by the server's own StructureDefinitions (OPC 10000-3, 8.48; encodings: OPC 10000-6, 5.2.6 to 5.2.8).
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from edge.proposal import clean_name
from edge.sources.opcua.walker import Value, read_value
from edge.sources.opcua.wire import Cursor, DecodeError
from fieldlab.model.status import BAD

DEEPEST: Final = 16
MOST_VALUES: Final = 2000  # within one
_STRUCTURE, _DATA_VALUE, _VARIANT, _DIAGNOSTIC = 22, 23, 24, 25


class Field(msgspec.Struct, frozen=True):
    """A field of a structure.

    Attributes:
        name: as a part of a signal's name.
        builtin: the builtin type on the wire; 22 for a structure that says itself what it is.
        structure: the DataType, where the field is a structure of exactly that type; empty otherwise.
        rank: 0 for one value, otherwise the number of dimensions.
        optional: whether it may be absent.
        states: number → text, of an enumeration.
    """

    name: str
    builtin: int
    structure: str = ""
    rank: int = 0
    optional: bool = False
    states: dict[str, str] = {}


class Structure(msgspec.Struct, frozen=True):
    """How a DataType is encoded."""

    name: str
    kind: Literal["plain", "optional", "union"]
    fields: tuple[Field, ...]


class Leaf(msgspec.Struct, frozen=True):
    """One value within another.

    Attributes:
        path: where, such as `.position.x` or `[0].load`.
        value: None if there is none.
        status: a StatusCode of its own; 0 if it has none.
        states: number → text, of an enumeration.
    """

    path: str
    value: Value | None
    status: int = 0
    states: Mapping[str, str] = {}


class UnknownTypeError(DecodeError):
    """The server has not said yet what is in a structure.

    Attributes:
        encoding: NodeId of its encoding.
    """

    def __init__(self, encoding: str) -> None:
        super().__init__(
            f"the fields of the structure {encoding} are not known: the server tells no DataTypeDefinition, "
            "and no type dictionary that can be read"
        )
        self.encoding = encoding


class Types(msgspec.Struct):
    """What is known of the structures of one server. NodeIds are text, as `Cursor.node_id_text` gives them.

    Attributes:
        structures: DataType → how it is encoded.
        encodings: NodeId of a binary encoding → its DataType.
    """

    structures: dict[str, Structure] = {}
    encodings: dict[str, str] = {}

    def flatten(self, variant: bytes) -> list[Leaf]:
        """The values within a Variant (OPC 10000-6, 5.2.2.16), in order.

        Raises:
            UnknownTypeError: if it holds a structure of a type that is not known.
            DecodeError: if it is not what its type says, nested too deep, or too large. So does `struct.error`.
        """
        cursor = Cursor(variant)
        leaves = list(_Reader(self).variant(cursor, "", 0))
        if cursor.pos != cursor.end:
            raise DecodeError(f"{cursor.end - cursor.pos} bytes too many")
        return leaves


class _Reader:
    """Reads one value; what it may hold is bounded."""

    def __init__(self, types: Types) -> None:
        self._types = types
        self._left = MOST_VALUES

    def variant(self, cursor: Cursor, path: str, depth: int) -> Iterator[Leaf]:
        encoding = cursor.u8()
        kind = encoding & 0x3F
        if not encoding & 0x80:
            if kind:
                yield from self._value(cursor, Field("", kind), path, depth)
            return
        for i in range(cursor.count(1 if kind else 0)):
            yield from self._value(cursor, Field("", kind), f"{path}[{i}]", depth)
        if encoding & 0x40:
            cursor.skip(cursor.count(4) * 4)

    def _field(self, cursor: Cursor, field: Field, path: str, depth: int) -> Iterator[Leaf]:
        if not field.rank:
            yield from self._value(cursor, field, path, depth)
            return
        if field.rank == 1:
            count = cursor.count(0)
        else:  # OPC 10000-6, 5.2.5: the dimensions, then all values
            count = 1
            for _ in range(cursor.count(4)):
                count *= max(cursor.i32(), 0)
        if count > self._left:  # elements may take no bytes at all
            raise DecodeError(f"more than {MOST_VALUES} values within one")
        for i in range(count):
            yield from self._value(cursor, field, f"{path}[{i}]", depth)

    def _value(self, cursor: Cursor, field: Field, path: str, depth: int) -> Iterator[Leaf]:
        self._left -= 1
        if self._left < 0:
            raise DecodeError(f"more than {MOST_VALUES} values within one")
        if depth > DEEPEST:
            raise DecodeError(f"nested deeper than {DEEPEST}")
        if field.structure:
            yield from self._structure(cursor, self._types.structures[field.structure], path, depth + 1)
        elif field.builtin == _STRUCTURE:
            yield from self._extension_object(cursor, path, depth + 1)
        elif field.builtin == _VARIANT:
            yield from self.variant(cursor, path, depth + 1)
        elif field.builtin == _DATA_VALUE:
            yield from self._data_value(cursor, path, depth + 1)
        elif field.builtin == _DIAGNOSTIC:
            cursor.skip_diagnostic()
        else:
            yield Leaf(path, read_value(cursor, field.builtin), states=field.states)

    def _extension_object(self, cursor: Cursor, path: str, depth: int) -> Iterator[Leaf]:
        encoding = cursor.node_id_text()
        how = cursor.u8()
        if how == 0:
            return
        if how != 1:
            raise DecodeError(f"a structure in XML ({encoding}), which is not read")
        size = cursor.i32()
        end = cursor.end if size < 0 else cursor.pos + size
        if end > cursor.end:
            raise DecodeError(f"a structure of {size} bytes, {cursor.end - cursor.pos} left")
        known = self._types.structures.get(self._types.encodings.get(encoding, ""))
        if known is None:
            raise UnknownTypeError(encoding)
        body = Cursor(cursor.data, cursor.pos, end)
        yield from self._structure(body, known, path, depth)
        if size >= 0 and body.pos != end:
            raise DecodeError(f"{known.name}: {end - body.pos} bytes more than its definition says")
        cursor.pos = body.pos

    def _structure(self, cursor: Cursor, known: Structure, path: str, depth: int) -> Iterator[Leaf]:
        if known.kind == "union":
            switch = cursor.u32()
            if switch > len(known.fields):
                raise DecodeError(f"{known.name}: a union of {len(known.fields)} fields has no field {switch}")
            fields = known.fields[switch - 1 : switch] if switch else ()
        elif known.kind == "optional":
            mask = cursor.u32()
            optional = [field for field in known.fields if field.optional]
            if mask >> len(optional):
                raise DecodeError(f"{known.name}: the mask {mask:#x} names more than {len(optional)} optional fields")
            absent = {field.name for bit, field in enumerate(optional) if not mask >> bit & 1}
            fields = tuple(field for field in known.fields if field.name not in absent)
        else:
            fields = known.fields
        for field in fields:
            yield from self._field(cursor, field, f"{path}.{field.name}", depth)

    def _data_value(self, cursor: Cursor, path: str, depth: int) -> Iterator[Leaf]:
        start = cursor.pos
        mask = cursor.u8()
        leaves = list(self.variant(cursor, path, depth)) if mask & 0x01 else [Leaf(path, None)]
        status = cursor.u32() if mask & 0x02 else 0
        cursor.pos = start
        cursor.skip_data_value(depth)
        for leaf in leaves:
            value = None if status & BAD else leaf.value
            yield msgspec.structs.replace(leaf, value=value, status=leaf.status or status)


def field_name(text: str | None) -> str:
    """A field's name as a part of a signal's name."""
    return clean_name(text or "").replace(".", "_")


FAILURES: Final = (DecodeError, struct.error, ValueError, OverflowError)
