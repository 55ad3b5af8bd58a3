"""What the server says of the types of our signals, and values of structures made into readings by it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse import CallLimits, in_batches, read_limits
from edge.sources.opcua.columns import Opaque
from edge.sources.opcua.counters import Counters
from edge.sources.opcua.datatypes import DataTypes
from edge.sources.opcua.enumerations import read_enumerations
from edge.sources.opcua.polling_wire import read_encoded
from edge.sources.opcua.session import PublishSession
from edge.sources.opcua.signals import BAD_NO_DATA, SignalMap
from edge.sources.opcua.structures import FAILURES, Leaf, UnknownTypeError
from edge.sources.opcua.wire import Cursor
from fieldlab.model import BatchBuilder

log = structlog.get_logger()

BAD_DECODING: Final = 0x80070000  # BadDecodingError
BAD_TYPE_MISMATCH: Final = 0x80740000
_NODE_ID, _STRUCTURE, _MADE_OF_OTHERS = 17, 22, (22, 23, 24)
_DISCRETE: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 26, 27, 28})  # what a discrete variable can be
_MOST_UNKNOWN: Final = 100


class Typed:
    """The types of one source's signals.

    Attributes:
        unknown: encodings of structures that came and are not known; `look_up` asks for them.
        ready: whether something was learned in this session.
    """

    def __init__(self, name: str, url: str, signals: SignalMap, counters: Counters) -> None:
        self._name = name
        self._url = url
        self._signals = signals
        self._counters = counters
        self._types = DataTypes()
        self._discrete: dict[int, ua.NodeId] = {}
        self._present: dict[int, dict[str, Leaf]] = {}
        self._refused: set[str] = set()
        self.unknown: set[str] = set()
        self.ready = False

    def new_session(self) -> None:
        """The server may be another one now, and its namespaces in another order."""
        self._types = DataTypes()
        self._discrete.clear()
        self._refused.clear()
        self.unknown.clear()
        self.ready = False

    async def learn(self, session: PublishSession, nodes: Mapping[int, ua.NodeId]) -> None:
        """Ask what these nodes, by client handle, are made of. What the server does not say is only logged.

        Raises:
            OSError, TimeoutError: if the connection is lost.
        """
        self.ready = True
        if not nodes:
            return
        try:
            limits = await read_limits(session)
            told = dict(zip(nodes, await _data_types(session, list(nodes.values()), limits), strict=True))
            wanted = {text: ua.NodeId.from_string(text) for text in set(told.values()) if text}
            await self._types.learn(session, limits, wanted.values())
            vague = []
            for handle, text in told.items():
                basis = self._types.basis.get(text, 0)
                states = self._types.states.get(text)
                if states:
                    self._signals.set_states(handle, states)
                elif basis in _DISCRETE:
                    self._discrete[handle] = nodes[handle]
                elif basis in (0, *_MADE_OF_OTHERS) and text not in self._types.types.structures:
                    vague.append(nodes[handle])  # it may hold any structure: see which one it holds now
            if vague:
                values = await in_batches(vague, limits.read, lambda part: read_encoded(session, part))
                found = {text for value in values for text in _encodings(value)}
                await self._types.learn_encodings(session, limits, sorted(found))
        except uaerrors.UaError as e:
            self._not_told("types", e)

    async def look_up(self, session: PublishSession) -> None:
        """Ask for structures that came and are not known; once a session each.

        Raises:
            OSError, TimeoutError: if the connection is lost.
        """
        wanted = sorted(self.unknown - self._refused)[:_MOST_UNKNOWN]
        self._refused.update(wanted)
        self.unknown.clear()
        if not wanted:
            return
        try:
            await self._types.learn_encodings(session, await read_limits(session), wanted)
        except uaerrors.UaError as e:
            self._not_told("types", e)

    async def learn_states(self, session: PublishSession) -> None:
        """Ask for the texts of discrete variables; done when readings flow already, because it asks for each node.

        Raises:
            OSError, TimeoutError: if the connection is lost.
        """
        asked, self._discrete = self._discrete, {}
        if not asked:
            return
        try:
            found = await read_enumerations(session, await read_limits(session), list(asked.values()))
        except uaerrors.UaError as e:
            self._not_told("states", e)
            return
        for handle, node in asked.items():
            if found.get(node):
                self._signals.set_states(handle, found[node])

    def _not_told(self, what: str, error: uaerrors.UaError) -> None:
        log.warning("opcua_types_not_told", source=self._name, url=self._url, what=what, error=type(error).__name__)

    def expand(self, opaque: Sequence[Opaque], builder: BatchBuilder) -> list[tuple[Opaque, str]]:
        """Add the values within each of `opaque` to `builder`, by signal index.

        Returns:
            Those that cannot be read, each with its reason; their signals have the status BadDecodingError instead.
        """
        failed = []
        for one in opaque:
            try:
                leaves = self._types.types.flatten(one.variant)
            except FAILURES as e:
                if isinstance(e, UnknownTypeError) and len(self.unknown) < _MOST_UNKNOWN:
                    self.unknown.add(e.encoding)
                failed.append((one, str(e)))
                self._counters.undecodable += 1
                for index in self._signals.all_of(one.handle):
                    builder.add(index, one.time, None, BAD_DECODING)
                continue
            self._counters.empty += not leaves
            if not leaves and not one.variant[0] & 0x80 and not self._present.get(one.handle):
                for index in self._signals.all_of(one.handle):
                    builder.add(index, one.time, None, BAD_NO_DATA)
            before, now = self._present.get(one.handle, {}), {leaf.path: leaf for leaf in leaves}
            self._present[one.handle] = now
            for leaf in leaves:
                status = leaf.status or (one.status if leaf.value is not None else BAD_TYPE_MISMATCH)
                self._add(builder, one, leaf, leaf.value, status)
            for path, leaf in before.items():
                if path not in now:
                    self._add(builder, one, leaf, None, BAD_NO_DATA)
        return failed

    def _add(self, builder: BatchBuilder, one: Opaque, leaf: Leaf, value: Any, status: int) -> None:
        index = self._signals.leaf(one.handle, leaf.path, leaf.states, text=isinstance(leaf.value, str))
        if index is None:
            self._signals.refused += 1
        else:
            builder.add(index, one.time, value, status)


async def _data_types(session: PublishSession, nodes: Sequence[ua.NodeId], limits: CallLimits) -> list[str]:
    """The DataType of each node as text; empty where the server does not say it."""

    async def read(part: list[ua.NodeId]) -> list[bytes]:
        return await read_encoded(session, part, AttributeIds.DataType)

    return [_node_id(value) for value in await in_batches(nodes, limits.read, read)]


def _node_id(value: bytes) -> str:
    """The NodeId in an encoded DataValue; empty if there is none."""
    cursor = Cursor(value)
    return cursor.node_id_text() if cursor.u8() & 0x01 and cursor.u8() == _NODE_ID else ""


def _encodings(value: bytes) -> set[str]:
    """What the structures in an encoded DataValue are encoded as; not those within others."""
    cursor = Cursor(value)
    found = set()
    try:
        if not cursor.u8() & 0x01:
            return set()
        encoding = cursor.u8()
        if encoding & 0x3F != _STRUCTURE:
            return set()
        for _ in range(cursor.count(1) if encoding & 0x80 else 1):
            start = cursor.pos
            found.add(cursor.node_id_text())
            cursor.pos = start
            cursor.skip_extension_object()
    except FAILURES:
        return found  # what came before it is right; the reading itself will say what is wrong
    return found
