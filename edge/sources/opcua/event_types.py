"""The event types of a server: their names, and what is a kind of what."""

from collections.abc import Sequence
from typing import Final

from asyncua import ua
from asyncua.client.ua_session import UaSession

from edge.sources.opcua.browse import HAS_SUBTYPE, browse, read_limits
from edge.sources.opcua.event_fields import BASE_EVENT
from edge.sources.opcua.nodes import NodeAddress, UnknownNamespaceError

_MOST: Final = 10_000
_DEEPEST: Final = 24


class EventTypes:
    """Every event type below BaseEventType, as the server has them now."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {_key(BASE_EVENT): "BaseEventType"}
        self._parents: dict[str, str] = {}
        self._nodes: dict[str, ua.NodeId] = {_key(BASE_EVENT): ua.NodeId(ua.Int32(BASE_EVENT))}

    async def read(self, session: UaSession) -> None:
        """Browse them, a level a call."""
        limits = await read_limits(session)
        level = [ua.NodeId(ua.Int32(BASE_EVENT))]
        for _ in range(_DEEPEST):
            found = await browse(session, level, limits, reference=HAS_SUBTYPE)
            following = []
            for parent, references in zip(level, found, strict=True):
                for reference in references:
                    node = _plain(reference.NodeId)
                    key = node.to_string()
                    if key in self._parents or len(self._nodes) >= _MOST:
                        continue
                    self._parents[key] = parent.to_string()
                    self._names[key] = reference.BrowseName.Name or key
                    self._nodes[key] = node
                    following.append(node)
            level = following
            if not level:
                return

    def __len__(self) -> int:
        return len(self._nodes)

    def name(self, node: ua.NodeId | None) -> str:
        """The browse name of a type; its NodeId where it is not known."""
        if node is None:
            return ""
        key = _plain(node).to_string()
        return self._names.get(key, key)

    def find(self, wanted: Sequence[str], namespaces: Sequence[str]) -> list[ua.NodeId] | str:
        """The types meant by names or NodeIds, or what is wrong with one of them. None of them for BaseEventType."""
        found = []
        for text in wanted:
            try:
                nodes = [NodeAddress.parse(text).resolve(namespaces)]
            except UnknownNamespaceError as e:
                return str(e)
            except ValueError:
                nodes = [self._nodes[key] for key, name in self._names.items() if name == text]
            if not nodes or any(node.to_string() not in self._nodes for node in nodes):
                return f"the server has no event type {text}"
            found += nodes
        return [] if any(node.to_string() == _key(BASE_EVENT) for node in found) else found

    def is_one_of(self, node: ua.NodeId | None, wanted: Sequence[ua.NodeId]) -> bool:
        """Whether a type is one of these or a subtype; one that is not known counts: the server knows."""
        if not wanted or node is None:
            return True
        key = _plain(node).to_string()
        if key not in self._nodes:
            return True
        keys = {one.to_string() for one in wanted}
        while key not in keys:
            if key not in self._parents:
                return False
            key = self._parents[key]
        return True


async def read_event_types(session: UaSession) -> EventTypes:
    """The server's event types as they are now."""
    types = EventTypes()
    await types.read(session)
    return types


def _plain(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)


def _key(number: int) -> str:
    return f"i={number}"
