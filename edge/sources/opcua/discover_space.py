"""The part of a server's address space below Objects, read once, within bounds."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse import (
    HAS_SUBTYPE,
    CallLimits,
    browse,
    plain,
    read_limits,
    read_namespaces,
    read_values,
)
from edge.sources.opcua.datatypes import DataTypes

OBJECTS: Final = ua.NodeId(ua.Int32(85))
_WAVE: Final = 500  # nodes browsed before the bound is looked at again
_DEEPEST: Final = 24
_CHAIN: Final = 12  # supertypes of a type
# Of namespace 0: Server, Aliases, Locations, Quantities. They describe the server, no machine.
_SKIPPED: Final = frozenset({2253, 23470, 31915, 32530})
_HAS_PROPERTY: Final = "i=46"
_BASE_TYPES: Final = 30  # i=1 to i=29 are the builtin types, Number, Integer, UInteger and Enumeration


class Node(msgspec.Struct, eq=False):
    """An object or a variable.

    Attributes:
        id: its NodeId on this server now.
        namespace: the URI of its browse name.
        name: its browse name.
        display: its display name.
        variable: whether it is a variable.
        type: key of its type definition.
        property: whether it hangs on its parent by HasProperty.
        children: keys of what it holds, in the server's order.
    """

    id: ua.NodeId
    namespace: str
    name: str
    display: str
    variable: bool
    type: str
    property: bool = False
    children: dict[str, None] = {}


class Facts(msgspec.Struct, frozen=True):
    """Attributes of a variable: its value with status, its data type, rank and the rights of this user."""

    value: ua.DataValue
    data_type: ua.NodeId | None
    rank: int
    readable: bool
    description: str


class Space:
    """What was found.

    Attributes:
        namespaces: the server's NamespaceArray.
        limits: what one call may name.
        nodes: key → node; the key is the NodeId as text.
        types: key of a type → (namespace URI, browse name) of it and its supertypes, nearest first.
        cut: whether there was more than `max_nodes`.
    """

    def __init__(self, session: UaSession, namespaces: Sequence[str], limits: CallLimits) -> None:
        self._session = session
        self.namespaces = namespaces
        self.limits = limits
        self.nodes: dict[str, Node] = {}
        self.types: dict[str, list[tuple[str, str]]] = {}
        self.cut = False

    def below(self, key: str, *, stop: frozenset[str] = frozenset()) -> Iterator[tuple[str, ...]]:
        """Paths of keys from a child of `key` down, parents first, each node once; not into `stop`."""
        seen = {key}
        waiting: list[tuple[str, ...]] = [(child,) for child in reversed(list(self.nodes[key].children))]
        while waiting:
            path = waiting.pop()
            if path[-1] in seen or path[-1] in stop:
                continue
            seen.add(path[-1])
            yield path
            waiting += [(*path, child) for child in reversed(list(self.nodes[path[-1]].children))]

    def is_a(self, key: str, namespace: str, *names: str) -> bool:
        """Whether a node's type is one of these, or a subtype."""
        return any(ns == namespace and name in names for ns, name in self.types.get(self.nodes[key].type, ()))

    async def facts(self, keys: Sequence[str]) -> dict[str, Facts]:
        """Attributes of these variables."""
        asked = (
            AttributeIds.Value,
            AttributeIds.DataType,
            AttributeIds.ValueRank,
            AttributeIds.UserAccessLevel,
            AttributeIds.Description,
        )
        wanted = [(self.nodes[key].id, attribute) for key in keys for attribute in asked]
        values = await read_values(self._session, wanted, self.limits)
        found = {}
        for i, key in enumerate(keys):
            value, data_type, rank, access, about = values[i * len(asked) : (i + 1) * len(asked)]
            rights = plain(access)
            found[key] = Facts(
                value,
                plain(data_type),
                plain(rank) if isinstance(plain(rank), int) else -1,
                not isinstance(rights, int) or bool(rights & 0x01),
                str(getattr(plain(about), "Text", "") or ""),
            )
        return found

    async def values(self, keys: Sequence[str]) -> dict[str, Any]:
        """The values alone."""
        wanted = [(self.nodes[key].id, AttributeIds.Value) for key in keys]
        found = await read_values(self._session, wanted, self.limits)
        return {key: plain(value) for key, value in zip(keys, found, strict=True)}

    async def base_types(self, types: Sequence[ua.NodeId]) -> dict[str, int]:
        """Data type → the number of its builtin type, of Enumeration (29), or 0 if it cannot be told."""
        chains = await _chains(self._session, types, self.limits)
        found = {}
        for key, chain in chains.items():
            builtin = [
                int(node.Identifier)
                for node in chain
                if node.NamespaceIndex == 0
                and isinstance(node.Identifier, int)
                and (node.Identifier < _BASE_TYPES and node.Identifier != 24)
            ]
            found[key] = next(iter(builtin), 0)
        return found

    async def structures(self, types: Sequence[ua.NodeId]) -> dict[str, list[str]]:
        """Data type → the names of its fields, of the structures that can be read."""
        known = DataTypes()
        await known.learn(self._session, self.limits, types)
        found = {key_of(node): known.types.structures.get(key_of(node)) for node in types}
        return {key: [field.name for field in one.fields] for key, one in found.items() if one is not None}

    async def enumerations(self, types: Sequence[ua.NodeId]) -> dict[str, Any]:
        """Data type → its EnumStrings or EnumValues, where it has one of them."""
        found = await browse(self._session, types, self.limits, classes=ua.NodeClass.Variable)
        names = {
            key_of(node): reference.NodeId
            for node, references in zip(types, found, strict=True)
            for reference in references
            if reference.BrowseName.Name in ("EnumStrings", "EnumValues")
        }
        values = await read_values(
            self._session, [(_local(node), AttributeIds.Value) for node in names.values()], self.limits
        )
        return {key: plain(value) for key, value in zip(names, values, strict=True)}


def key_of(node: ua.NodeId) -> str:
    """A NodeId as text, whatever form it had on the wire."""
    return _local(node).to_string()


def _local(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


async def read_space(session: UaSession, *, max_nodes: int) -> Space:
    """Browse objects and variables below Objects, breadth first, up to `max_nodes`."""
    limits = await read_limits(session)
    space = Space(session, await read_namespaces(session), limits)
    root = key_of(OBJECTS)
    space.nodes[root] = Node(OBJECTS, "", "Objects", "Objects", False, "i=61", children={})
    level = [root]
    for _ in range(_DEEPEST):
        following: list[str] = []
        for start in range(0, len(level), _WAVE):
            part = level[start : start + _WAVE]
            found = await browse(
                session,
                [space.nodes[key].id for key in part],
                limits,
                classes=ua.NodeClass.Object | ua.NodeClass.Variable,
            )
            for key, references in zip(part, found, strict=True):
                following += _take(space, key, references, max_nodes)
        level = following
        if not level:
            break
    else:
        space.cut = True
    await _read_types(space, session)
    return space


def _take(space: Space, parent: str, references: list[ua.ReferenceDescription], max_nodes: int) -> list[str]:
    """Add the children of a node; returns the keys of those that are new."""
    new = []
    for reference in references:
        if reference.NodeId.ServerIndex if isinstance(reference.NodeId, ua.ExpandedNodeId) else False:
            continue  # on another server
        node = _local(reference.NodeId)
        if node.NamespaceIndex == 0 and node.Identifier in _SKIPPED:
            continue
        key = key_of(node)
        if key not in space.nodes:
            if len(space.nodes) >= max_nodes:
                space.cut = True
                continue
            index = reference.BrowseName.NamespaceIndex
            space.nodes[key] = Node(
                id=node,
                namespace=space.namespaces[index] if index < len(space.namespaces) else "",
                name=reference.BrowseName.Name or "",
                display=str(reference.DisplayName.Text or reference.BrowseName.Name or ""),
                variable=reference.NodeClass == ua.NodeClass.Variable,
                type=key_of(reference.TypeDefinition),
                property=key_of(reference.ReferenceTypeId) == _HAS_PROPERTY,
                children={},
            )
            new.append(key)
        space.nodes[parent].children[key] = None
    return new


async def _read_types(space: Space, session: UaSession) -> None:
    """The names of every type definition in use, and of its supertypes."""
    used = {node.type for node in space.nodes.values() if node.type not in ("i=0", "i=61", "i=58", "i=68", "i=63")}
    chains = await _chains(session, [ua.NodeId.from_string(key) for key in sorted(used)], space.limits)
    every = {key_of(node): node for chain in chains.values() for node in chain}
    names = await read_values(session, [(node, AttributeIds.BrowseName) for node in every.values()], space.limits)
    name_of = {}
    for key, value in zip(every, names, strict=True):
        name = plain(value)
        if name is not None and name.NamespaceIndex < len(space.namespaces):
            name_of[key] = (space.namespaces[name.NamespaceIndex], str(name.Name))
    space.types = {key: [name_of[key_of(n)] for n in chain if key_of(n) in name_of] for key, chain in chains.items()}


async def _chains(session: UaSession, types: Sequence[ua.NodeId], limits: CallLimits) -> dict[str, list[ua.NodeId]]:
    """Type → itself and its supertypes, nearest first."""
    chains = {key_of(node): [_local(node)] for node in types}
    parents: dict[str, ua.NodeId | None] = {}
    for _ in range(_CHAIN):
        heads = {key_of(chain[-1]): chain[-1] for chain in chains.values()}
        unknown = [node for key, node in heads.items() if key not in parents]
        found = await browse(session, unknown, limits, reference=HAS_SUBTYPE, inverse=True)
        for node, references in zip(unknown, found, strict=True):
            parents[key_of(node)] = _local(references[0].NodeId) if references else None
        grown = False
        for chain in chains.values():
            parent = parents[key_of(chain[-1])]
            if parent is not None:
                chain.append(parent)
                grown = True
        if not grown:
            break
    return chains
