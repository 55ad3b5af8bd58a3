"""What is asked of an event and how it comes back: the EventFilter, and the fields of an EventNotificationList.

Fields and types: OPC 10000-5, 6.4 (BaseEventType) and OPC 10000-9, 5 (conditions and alarms).
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import variant_from_binary

from edge.sources.opcua.wire import Cursor

BASE_EVENT: Final = 2041
_CONDITION, _ACKNOWLEDGEABLE, _ALARM, _LIMIT, _EXCLUSIVE, _NON_EXCLUSIVE = 2782, 2881, 2915, 2955, 9341, 9906
_DIALOG: Final = 2830
_DATE_TIME: Final = 13
_MOST_FIELDS: Final = 1000

Kind = Literal["bytes", "node", "text", "time", "integer", "number", "flag", "status"]


class Field(msgspec.Struct, frozen=True):
    """A field of an event.

    Attributes:
        name: ours.
        kind: what it must be; anything else counts as a bad field and is empty.
        of: number of the event type that defines it, in namespace 0.
        path: browse names from there on; none for the NodeId of the condition itself.
    """

    name: str
    kind: Kind
    of: int
    path: tuple[str, ...]


BASE: Final = (
    Field("event_id", "bytes", BASE_EVENT, ("EventId",)),
    Field("event_type", "node", BASE_EVENT, ("EventType",)),
    Field("source_node", "node", BASE_EVENT, ("SourceNode",)),
    Field("source_name", "text", BASE_EVENT, ("SourceName",)),
    Field("time", "time", BASE_EVENT, ("Time",)),
    Field("receive_time", "time", BASE_EVENT, ("ReceiveTime",)),
    Field("message", "text", BASE_EVENT, ("Message",)),
    Field("severity", "integer", BASE_EVENT, ("Severity",)),
)
FIELDS: Final = (
    *BASE,
    Field("condition_id", "node", _CONDITION, ()),
    Field("condition_name", "text", _CONDITION, ("ConditionName",)),
    Field("branch", "node", _CONDITION, ("BranchId",)),
    Field("retain", "flag", _CONDITION, ("Retain",)),
    Field("enabled", "flag", _CONDITION, ("EnabledState", "Id")),
    Field("quality", "status", _CONDITION, ("Quality",)),
    Field("comment", "text", _CONDITION, ("Comment",)),
    Field("acknowledged", "flag", _ACKNOWLEDGEABLE, ("AckedState", "Id")),
    Field("confirmed", "flag", _ACKNOWLEDGEABLE, ("ConfirmedState", "Id")),
    Field("active", "flag", _ALARM, ("ActiveState", "Id")),
    Field("high_high_limit", "number", _LIMIT, ("HighHighLimit",)),
    Field("high_limit", "number", _LIMIT, ("HighLimit",)),
    Field("low_limit", "number", _LIMIT, ("LowLimit",)),
    Field("low_low_limit", "number", _LIMIT, ("LowLowLimit",)),
    Field("limit_state", "text", _EXCLUSIVE, ("LimitState", "CurrentState")),
    Field("high_high", "flag", _NON_EXCLUSIVE, ("HighHighState", "Id")),
    Field("high", "flag", _NON_EXCLUSIVE, ("HighState", "Id")),
    Field("low", "flag", _NON_EXCLUSIVE, ("LowState", "Id")),
    Field("low_low", "flag", _NON_EXCLUSIVE, ("LowLowState", "Id")),
    # Behind the others: a subscription that an earlier program made goes on with the fields that it asked for.
    Field("suppressed_or_shelved", "flag", _ALARM, ("SuppressedOrShelved",)),
    Field("shelving", "text", _ALARM, ("ShelvingState", "CurrentState")),
    Field("dialog", "flag", _DIALOG, ("DialogState", "Id")),
    Field("prompt", "text", _DIALOG, ("Prompt",)),
)


class Ticks(int):
    """A DateTime: 100 ns since 1601. asyncua would cut it to microseconds."""


class BadField:
    """A field whose bytes nobody can read."""


BAD_FIELD: Final = BadField()


class EventFields(msgspec.Struct, frozen=True):
    """An event as it came: the client handle of its monitored item, and a value for each field asked for."""

    handle: int
    values: tuple[Any, ...]


def read_event_list(cursor: Cursor) -> list[EventFields]:
    """An EventNotificationList, OPC 10000-4, 7.25.3. A field that cannot be read is `BAD_FIELD`.

    Raises:
        DecodeError, struct.error: if the bytes run out.
    """
    found = []
    for _ in range(cursor.count(8)):
        handle = cursor.u32()
        found.append(EventFields(handle, tuple(_field(cursor) for _ in range(cursor.count(1)))))
    return found


def _field(cursor: Cursor) -> Any:
    start = cursor.pos
    encoding = cursor.data[start] if start < cursor.end else 0
    cursor.skip_variant()
    if encoding == _DATE_TIME:
        return Ticks(int.from_bytes(cursor.data[start + 1 : start + 9], "little", signed=True))
    try:
        return variant_from_binary(Buffer(cursor.data[start : cursor.pos])).Value
    except Exception:  # noqa: BLE001  asyncua raises whatever the bytes lead it to; one field must not stop the others
        return BAD_FIELD


def named(values: Sequence[Any], asked: Sequence[Field]) -> tuple[dict[str, Any], int]:
    """(name → value, without what is empty; how many fields were bad).

    A field that an event does not have is null. A server may say with a StatusCode that it could not get it.
    """
    found: dict[str, Any] = {}
    bad = abs(len(values) - len(asked))
    for field, value in zip(asked, values, strict=False):
        if value is None:
            continue
        known = _converted(field.kind, value)
        if known is None:
            bad += 1
        elif known != "":
            found[field.name] = known
    return found, bad


def _converted(kind: Kind, value: Any) -> Any:  # noqa: PLR0911  one return a kind
    """The value as we keep it; None if it is no such thing."""
    number = isinstance(value, int | float) and not isinstance(value, bool | Ticks)
    match kind:
        case "bytes" if isinstance(value, bytes):
            return value.hex()
        case "node" if isinstance(value, ua.NodeId):
            return "" if value.is_null() else value
        case "text" if isinstance(value, ua.LocalizedText):
            return value.Text or ""
        case "text" if isinstance(value, str):
            return str(value)
        case "time" if isinstance(value, Ticks):
            return value
        case "integer" if number:
            return int(value) if abs(value) < 2**63 else None  # also of NaN
        case "number" if number:
            return float(value)
        case "flag" if isinstance(value, bool):
            return value
        case "status" if isinstance(value, ua.StatusCode):
            return int(value.value)
    return None


def event_filter(fields: Sequence[Field], types: Sequence[ua.NodeId], severity: int) -> ua.EventFilter:
    """Which events to send, and what of them.

    Args:
        fields: what to send.
        types: only these and their subtypes; all if empty.
        severity: at least this one; all if 0.
    """
    conditions: list[Any] = []
    if types:
        some: Any = (ua.FilterOperator.OfType, [_literal(types[0], ua.VariantType.NodeId)])
        for one in types[1:]:
            some = (ua.FilterOperator.Or, [some, (ua.FilterOperator.OfType, [_literal(one, ua.VariantType.NodeId)])])
        conditions.append(some)
    if severity > 0:
        operands = [_operand(BASE[-1]), _literal(severity, ua.VariantType.UInt16)]
        conditions.append((ua.FilterOperator.GreaterThanOrEqual, operands))
    where = conditions[0] if len(conditions) == 1 else (ua.FilterOperator.And, conditions)
    elements: list[ua.ContentFilterElement] = []
    if conditions:
        _flatten(where, elements)
    return ua.EventFilter(
        SelectClauses=[_operand(field) for field in fields], WhereClause=ua.ContentFilter(Elements=elements)
    )


def _flatten(node: Any, elements: list[ua.ContentFilterElement]) -> int:
    """Add an expression, the root first; operands refer to later elements by index (OPC 10000-4, 7.7.1)."""
    operator, operands = node
    index = len(elements)
    elements.append(ua.ContentFilterElement(FilterOperator=operator))
    elements[index].FilterOperands = [
        ua.ElementOperand(Index=ua.UInt32(_flatten(one, elements))) if isinstance(one, tuple) else one
        for one in operands
    ]
    return index


def _literal(value: Any, kind: ua.VariantType) -> ua.LiteralOperand:
    return ua.LiteralOperand(Value=ua.Variant(value, kind))


def _operand(field: Field) -> ua.SimpleAttributeOperand:
    return ua.SimpleAttributeOperand(
        TypeDefinitionId=ua.NodeId(ua.Int32(field.of)),
        BrowsePath=[ua.QualifiedName(name, 0) for name in field.path],
        AttributeId=AttributeIds.Value if field.path else AttributeIds.NodeId,
    )
