"""A value of a configuration file as the OPC UA type that a server asks for, exactly, or not at all."""

import base64
import binascii
import datetime as dt
import math
import uuid
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.client.ua_session import UaSession

from edge.actions.command import Plain, Value
from edge.sources.opcua.browse import HAS_SUBTYPE, CallLimits, browse

_KINDS: Final = ua.VariantType
_ENUMERATION: Final = 29  # OPC 10000-5, 12.2
_ABSTRACT: Final = frozenset({24, 26, 27, 28})  # BaseDataType, Number, Integer, UInteger
_BUILTIN: Final = 25
_DEEPEST: Final = 20
_INTEGERS: Final = {
    _KINDS.SByte: (-(2**7), 2**7 - 1),
    _KINDS.Byte: (0, 2**8 - 1),
    _KINDS.Int16: (-(2**15), 2**15 - 1),
    _KINDS.UInt16: (0, 2**16 - 1),
    _KINDS.Int32: (-(2**31), 2**31 - 1),
    _KINDS.UInt32: (0, 2**32 - 1),
    _KINDS.Int64: (-(2**63), 2**63 - 1),
    _KINDS.UInt64: (0, 2**64 - 1),
}
_EXACT: Final = 2**53
_LARGEST_FLOAT: Final = float(np.finfo(np.float32).max)


class NotPossibleError(Exception):
    """A command does not fit the server as it is now; the text says why."""


async def base_type(session: UaSession, data_type: ua.NodeId | None, now: ua.Variant | None) -> ua.VariantType:
    """The builtin type that a DataType is one of (OPC 10000-3, 5.8.2). Of an abstract one: the type of the value now.

    Raises:
        NotPossibleError: if it is none that can be written, or cannot be told.
    """
    at = data_type
    for _ in range(_DEEPEST):
        if at is None:
            break
        if at.NamespaceIndex == 0 and isinstance(at.Identifier, int):
            if at.Identifier == _ENUMERATION:
                return _KINDS.Int32
            if at.Identifier in _ABSTRACT:
                if now is not None and now.Value is not None and isinstance(now.VariantType, ua.VariantType):
                    return now.VariantType
                break
            if 0 < at.Identifier <= _BUILTIN:
                return _KINDS(at.Identifier)
        (above,) = await browse(session, [at], CallLimits(), reference=HAS_SUBTYPE, inverse=True)
        at = (
            ua.NodeId(above[0].NodeId.Identifier, above[0].NodeId.NamespaceIndex, above[0].NodeId.NodeIdType)
            if above
            else None
        )
    raise NotPossibleError(f"the data type {data_type.to_string() if data_type is not None else ''} cannot be told")


def to_variant(value: Value, kind: ua.VariantType, rank: int | None) -> ua.Variant:
    """`value` as `kind`; a list where the ValueRank takes one (OPC 10000-3, 5.6.2).

    Raises:
        NotPossibleError: if it does not fit without a change.
    """
    array = isinstance(value, tuple)
    takes = (rank in (-3, -2, 0, 1)) if array else (rank in (None, -3, -2, -1))
    if not takes:
        what = "an array" if array else "a single value"
        raise NotPossibleError(f"{what} does not fit: its ValueRank is {rank}")
    if isinstance(value, tuple):
        return ua.Variant([_one(v, kind) for v in value], kind, is_array=True)
    return ua.Variant(_one(value, kind), kind)


def _one(value: Plain, kind: ua.VariantType) -> Any:
    wrong = NotPossibleError(f"{value!r} does not fit: it is a {kind.name}")
    if kind == _KINDS.Boolean:
        if not isinstance(value, bool):
            raise wrong
        return value
    if isinstance(value, bool):
        raise wrong
    if kind in _INTEGERS:
        low, high = _INTEGERS[kind]
        if not isinstance(value, int):
            raise wrong
        if not low <= value <= high:
            raise NotPossibleError(f"{value} is out of the range of a {kind.name}: {low} to {high}")
        return value
    if kind in (_KINDS.Double, _KINDS.Float):
        return _real(value, kind, wrong)
    if not isinstance(value, str):
        raise wrong
    try:
        return _text(value, kind)
    except (ValueError, binascii.Error):
        raise wrong from None


def _real(value: Plain, kind: ua.VariantType, wrong: NotPossibleError) -> float:
    if isinstance(value, str) or (isinstance(value, int) and abs(value) > _EXACT):
        raise wrong
    if not math.isfinite(value) or (kind == _KINDS.Float and abs(value) > _LARGEST_FLOAT):
        raise NotPossibleError(f"{value} is out of the range of a {kind.name}")
    return float(value)


def _text(value: str, kind: ua.VariantType) -> Any:
    """A text as a type that is written as one.

    Raises:
        ValueError: if it is none.
    """
    match kind:
        case _KINDS.String:
            return value
        case _KINDS.LocalizedText:
            return ua.LocalizedText(value)
        case _KINDS.Guid:
            return uuid.UUID(value)
        case _KINDS.ByteString:
            return base64.b64decode(value, validate=True)
        case _KINDS.DateTime:
            at = dt.datetime.fromisoformat(value)
            if at.tzinfo is None:
                raise ValueError("a time needs its offset")
            return at.astimezone(dt.UTC).replace(tzinfo=None)
        case _:
            raise ValueError(f"a {kind.name} cannot be written")
