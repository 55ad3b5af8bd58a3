"""The texts of enumerations and of discrete variables, in each of the ways that a server may tell them.

An EnumDefinition (OPC 10000-3, 8.50), EnumStrings or EnumValues of the DataType (OPC 10000-3, 5.8.3), EnumStrings,
EnumValues, or TrueState and FalseState of the variable (OPC 10000-8, 5.3.3).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse import CallLimits, browse, plain, read_values

MOST_STATES: Final = 500
_HAS_PROPERTY: Final = ua.NodeId(ua.Int32(46))
_TEXTS: Final = frozenset({"EnumStrings", "EnumValues", "TrueState", "FalseState"})


def texts_of_fields(fields: Iterable[Any]) -> dict[str, str]:
    """EnumFields or EnumValueTypes as number → text; the display name, or else the name."""
    found = {}
    for field in list(fields)[:MOST_STATES]:
        text = getattr(getattr(field, "DisplayName", None), "Text", None) or getattr(field, "Name", None)
        if text:
            found[str(int(field.Value))] = str(text)
    return found


def texts_of(value: Any) -> dict[str, str]:
    """EnumStrings (LocalizedText by position) or EnumValues as number → text."""
    if not isinstance(value, list):
        return {}
    if all(hasattr(one, "Value") for one in value):
        return texts_of_fields(value)
    texts = [getattr(one, "Text", one) for one in value[:MOST_STATES]]
    return {str(i): str(text) for i, text in enumerate(texts) if text}


async def read_enumerations(
    session: UaSession, limits: CallLimits, nodes: Sequence[ua.NodeId]
) -> dict[ua.NodeId, dict[str, str]]:
    """DataTypes, or variables → number → text, where they have properties that say it.

    Raises:
        uaerrors.UaError: if the server does not answer.
    """
    found = await browse(session, nodes, limits, reference=_HAS_PROPERTY, classes=ua.NodeClass.Variable)
    wanted = [
        (node, reference.BrowseName.Name, _local(reference.NodeId))
        for node, references in zip(nodes, found, strict=True)
        for reference in references
        if reference.BrowseName.Name in _TEXTS and not reference.BrowseName.NamespaceIndex
    ]
    values = await read_values(session, [(node, AttributeIds.Value) for _, _, node in wanted], limits)
    texts: dict[ua.NodeId, dict[str, str]] = {}
    for (node, name, _), value in zip(wanted, values, strict=True):
        told = plain(value)
        if name in ("TrueState", "FalseState"):
            text = getattr(told, "Text", None)
            new = {"1" if name == "TrueState" else "0": str(text)} if text else {}
        else:
            new = texts_of(told)
        texts[node] = texts.get(node, {}) | new
    return texts


def _local(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
