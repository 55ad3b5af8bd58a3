"""What the variables of a machine are as signals: name, kind, unit, range, texts of states."""

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from edge.proposal import ProposedSignal, clean_name, is_measured, unique_names
from edge.sources.opcua.browse import node_text, plain
from edge.sources.opcua.discover_space import Facts, Space, key_of
from fieldlab.model import SignalKind

# Numbers of builtin types, OPC 10000-6, 5.1.2.
_BOOLEAN, _STRING, _DATETIME, _GUID, _XML, _QUALIFIED, _LOCALIZED, _ENUMERATION = 1, 12, 13, 14, 16, 20, 21, 29
_STRUCTURE: Final = 22
_INTEGERS: Final = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 27, 28})
_FLOATS: Final = frozenset({10, 11, 26})
_TEXTS: Final = frozenset({_STRING, _GUID, _XML, _QUALIFIED, _LOCALIZED})
_UNKEPT: Final = {15: "ByteString", 17: "NodeId", 18: "ExpandedNodeId", 19: "StatusCode"}
_LONGEST_ARRAY: Final = 64
_MOST_STATES: Final = 100
_SHOWN_FIELDS: Final = 6
# Levels that only order things: OPC 10000-100 (DI), Machinery, Robotics, Machine Tools.
_ORDERING: Final = frozenset(
    {
        "ParameterSet", "Monitoring", "Components", "MotionDevices", "Axes", "PowerTrains", "Controllers",
        "MachineryBuildingBlocks", "Status", "Admin",
    }
)  # fmt: skip
# Nameplates and notes on the model: they do not change, so they are no signals (OPC 10000-100 and 40001-1).
_NAMEPLATE: Final = frozenset(
    {
        "Manufacturer", "ManufacturerUri", "Model", "ProductCode", "HardwareRevision", "SoftwareRevision",
        "DeviceRevision", "DeviceClass", "DeviceManual", "DeviceHelp", "SerialNumber", "ProductInstanceUri",
        "RevisionCounter", "AssetId", "ComponentName", "YearOfConstruction", "MonthOfConstruction",
        "InitialOperationDate", "Location", "DefaultInstanceBrowseName", "NodeVersion", "NamespaceUri",
        "NumberInList", "UIElement", "UUID", "EventNotifier", "StaticNodeIdTypes", "Icon",
    }
)  # fmt: skip
_STATIC_OBJECTS: Final = frozenset({"Identification", "MethodSet", "Server", "DeviceTypeImage", "Documentation"})
_STATE_NAMES: Final = re.compile(r"(state|status|mode)$", re.IGNORECASE)
_COUNTER_NAMES: Final = re.compile(r"(count|counter|total|parts_?produced\w*)$", re.IGNORECASE)


class Variables(msgspec.Struct, frozen=True):
    """The variables of one machine, ready to be judged.

    Attributes:
        keys: their nodes.
        names: a name for each.
        left_out: variables that no one should read, with the reason.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    left_out: tuple[str, ...]


def variables_of(space: Space, machine: str, others: frozenset[str]) -> Variables:
    """The variables below a machine, not those of `others` within it."""
    keys: list[str] = []
    paths: list[tuple[str, ...]] = []
    plates = 0
    pruned: set[str] = set()
    for path in space.below(machine, stop=others):
        node = space.nodes[path[-1]]
        if pruned.intersection(path[:-1]):
            plates += node.variable
            continue
        if not node.variable:
            if node.name in _STATIC_OBJECTS:
                pruned.add(path[-1])
            continue
        parent = space.nodes[path[-2]] if len(path) > 1 else space.nodes[machine]
        if node.property and parent.variable:
            continue  # EURange, EnumStrings and their kin: read with their variable
        if node.property and node.name in _NAMEPLATE:
            plates += 1
            continue
        keys.append(path[-1])
        paths.append(tuple(space.nodes[key].name for key in path))
    left_out = (f"{plates} entries of nameplates, which do not change",) if plates else ()
    return Variables(tuple(keys), tuple(_names(paths)), left_out)


def _names(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """The path of each below its machine, without levels that only order, where that stays unique."""
    short = [
        ".".join(clean_name(p) for i, p in enumerate(path) if i == len(path) - 1 or p not in _ORDERING)
        for path in paths
    ]
    long = [".".join(clean_name(p) for p in path) for path in paths]
    counts: dict[str, int] = {}
    for name in short:
        counts[name] = counts.get(name, 0) + 1
    return unique_names([s if counts[s] == 1 else p for s, p in zip(short, long, strict=True)])


async def signals_of(space: Space, variables: Variables) -> tuple[list[ProposedSignal], list[str]]:
    """(signals, what was left out and why) of a machine's variables."""
    keys = variables.keys
    facts = await space.facts(keys)
    types = {key_of(f.data_type): f.data_type for f in facts.values() if f.data_type is not None}
    bases = await space.base_types(list(types.values()))
    enumerated = [types[t] for t, base in bases.items() if base == _ENUMERATION]
    texts = await space.enumerations(enumerated)
    fields = await space.structures([types[t] for t, base in bases.items() if base == _STRUCTURE])
    about = await _properties(space, keys)
    signals: list[ProposedSignal] = []
    left_out = list(variables.left_out)
    for key, name in zip(keys, variables.names, strict=True):
        fact = facts[key]
        base = bases.get(key_of(fact.data_type), 0) if fact.data_type is not None else 0
        base = base or _seen_type(fact)
        data_type = key_of(fact.data_type) if fact.data_type is not None else ""
        reason = _unusable(fact, base)
        if base == _STRUCTURE and not reason and data_type not in fields:
            reason = "a structure, and the server does not tell its fields (or any may be there): add it by hand"
        if reason:
            left_out.append(f"{name}: {reason}")
            continue
        states = _states(about[key]) or _texts(texts.get(data_type)) or _two_states(about[key], base)
        node = node_text(space.nodes[key].id, space.namespaces)
        if base == _STRUCTURE:
            signals.append(_structure(name, node, fact, fields[data_type]))
        else:
            signals.append(_signal(name, node, fact, base, states, about[key]))
    return signals, left_out


async def _properties(space: Space, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Variable → its properties by name."""
    wanted = [(key, child) for key in keys for child in space.nodes[key].children if space.nodes[child].property]
    values = await space.values([child for _, child in wanted])
    found: dict[str, dict[str, Any]] = {key: {} for key in keys}
    for key, child in wanted:
        found[key][space.nodes[child].name] = values[child]
    return found


def _seen_type(fact: Facts) -> int:
    """The builtin type of the value, where the data type does not say (BaseDataType)."""
    variant = fact.value.Value
    kind = getattr(variant, "VariantType", None)
    return int(kind.value) if kind is not None and variant is not None and variant.Value is not None else 0


def _unusable(fact: Facts, base: int) -> str:
    """Why a variable cannot be a signal; empty if it can."""
    status = fact.value.StatusCode
    refused = status is not None and status.name in ("BadNotReadable", "BadUserAccessDenied")
    if not fact.readable or refused:
        return "this user may not read it"
    if base in _UNKEPT:
        return f"{_UNKEPT[base]}: add it by hand if that is meant"
    if base not in _TEXTS | _INTEGERS | _FLOATS | {_BOOLEAN, _DATETIME, _ENUMERATION, _STRUCTURE}:
        return "its type cannot be told"
    value = plain(fact.value)
    if isinstance(value, list) and len(value) > _LONGEST_ARRAY:
        return f"an array of {len(value)}: each element would be a signal; add it by hand if that is meant"
    if fact.rank > 1:
        return f"an array of {fact.rank} dimensions"
    return ""


def _signal(
    name: str, node: str, fact: Facts, base: int, states: dict[str, str], about: dict[str, Any]
) -> ProposedSignal:
    value = plain(fact.value)
    notes = [fact.description] if fact.description and fact.description != name else []
    unit = _unit(about.get("EngineeringUnits"))
    low, high = _range(about.get("EURange"))
    kind: SignalKind = "gauge"
    if base in _TEXTS:
        kind = "state" if _STATE_NAMES.search(name) else "text"
    elif base in (_BOOLEAN, _ENUMERATION) or states:
        kind = "state"
    elif base in _INTEGERS and _COUNTER_NAMES.search(name):
        kind = "counter"
    array = isinstance(value, list) or fact.rank >= 0
    if array:
        notes.append(f"an array: {name}[0], {name}[1], …")
    if kind != "gauge" or base == _DATETIME:
        low = high = None
    if low is not None:
        notes.append("lsl, usl: the server's EURange, its normal range; put the drawing's limits here if they differ")
    measured = (
        kind == "gauge" and not array and is_measured(name) and base != _DATETIME and (base in _FLOATS or bool(unit))
    )
    return ProposedSignal(
        name=name,
        kind=kind,
        unit=unit,
        lsl=low,
        usl=high,
        states=states if kind == "state" and base not in _TEXTS else {},
        address={"node": node},
        measured=measured,
        text=base in _TEXTS and not array,
        value="" if value is None else str(getattr(value, "Text", value))[:60],
        notes=tuple(note[:200] for note in notes),
    )


def _structure(name: str, node: str, fact: Facts, fields: Sequence[str]) -> ProposedSignal:
    """A structure: what is in it becomes signals, which are named when its values come."""
    array = isinstance(plain(fact.value), list) or fact.rank >= 0
    each = f"{name}[0]" if array else name
    shown = ", ".join(f"{each}.{field}" for field in fields[:_SHOWN_FIELDS])
    more = ", …" if len(fields) > _SHOWN_FIELDS or array else ""
    notes = [fact.description] if fact.description and fact.description != name else []
    notes.append(f"a structure, a signal a field: {shown}{more}" if fields else "a structure without fields")
    return ProposedSignal(name=name, address={"node": node}, notes=tuple(note[:200] for note in notes))


def _unit(about: Any) -> str:
    """The unit of an EUInformation; from its UnitId (UNECE Recommendation 20, OPC 10000-8, 5.6.3) if it has no name."""
    text = str(getattr(getattr(about, "DisplayName", None), "Text", "") or "").strip()
    if text:
        return text[:30]
    number = getattr(about, "UnitId", -1)
    if isinstance(number, int) and 0 < number < 1 << 31:
        code = number.to_bytes(4, "big").lstrip(b"\0")
        return code.decode("ascii") if code.isalnum() and code.isascii() else ""
    return ""


def _range(about: Any) -> tuple[float | None, float | None]:
    low, high = getattr(about, "Low", None), getattr(about, "High", None)
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None, None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None, None
    return float(low), float(high)


def _states(about: dict[str, Any]) -> dict[str, str]:
    """The texts of a MultiStateDiscreteType or MultiStateValueDiscreteType variable."""
    return _texts(about.get("EnumStrings")) or _texts(about.get("EnumValues"))


def _two_states(about: dict[str, Any], base: int) -> dict[str, str]:
    """The texts of a TwoStateDiscreteType variable, or plain words for a Boolean."""
    if base != _BOOLEAN:
        return {}
    texts = [str(getattr(about.get(name), "Text", "") or "") for name in ("FalseState", "TrueState")]
    return {str(i): text or word for i, (text, word) in enumerate(zip(texts, ("false", "true"), strict=True))}


def _texts(names: Any) -> dict[str, str]:
    """EnumStrings (LocalizedText by position) or EnumValues (EnumValueType) as number → text."""
    if not isinstance(names, list):
        return {}
    found = {}
    for i, one in enumerate(names[:_MOST_STATES]):
        number = getattr(one, "Value", i)
        text = getattr(getattr(one, "DisplayName", one), "Text", None)
        if isinstance(number, int) and text:
            found[str(number)] = str(text)
    return found
