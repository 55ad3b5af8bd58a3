"""Browse, BrowseNext and Read in batches that the server can take."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

log = structlog.get_logger()

HIERARCHICAL: Final = ua.NodeId(ua.Int32(33))  # HierarchicalReferences, OPC 10000-5, 11.4
HAS_SUBTYPE: Final = ua.NodeId(ua.Int32(45))
HAS_TYPE_DEFINITION: Final = ua.NodeId(ua.Int32(40))
NAMESPACE_ARRAY: Final = ua.NodeId(ua.Int32(2255))
_NODES_PER_CALL: Final = 500
_REFERENCES_PER_NODE: Final = 1000
_LONGEST_LIST: Final = 100_000  # references of one node
# OperationLimits, OPC 10000-5, 6.3.11.
_LIMIT_NODES: Final = {"read": 11705, "browse": 11710, "register": 11711, "translate": 11712}
TOO_MUCH: Final = (
    uaerrors.BadTooManyOperations,
    uaerrors.BadEncodingLimitsExceeded,
    uaerrors.BadRequestTooLarge,
    uaerrors.BadResponseTooLarge,
)

A = TypeVar("A")
B = TypeVar("B")


class CallLimits(msgspec.Struct, frozen=True):
    """How many nodes one call may name: what the server says, and at most 500."""

    read: int = _NODES_PER_CALL
    browse: int = _NODES_PER_CALL
    register: int = _NODES_PER_CALL
    translate: int = _NODES_PER_CALL


async def read_limits(session: UaSession) -> CallLimits:
    """The server's OperationLimits; 0, absent or nonsense means no limit of its own."""
    nodes = [ua.NodeId(ua.Int32(number)) for number in _LIMIT_NODES.values()]

    async def read(part: list[ua.NodeId]) -> list[ua.DataValue]:
        return await session.read_attributes(part, AttributeIds.Value)

    values = [plain(v) for v in await in_batches(nodes, 2, read)]  # it may not even take all of these at once
    told = {
        what: min(limit, _NODES_PER_CALL)
        for what, limit in zip(_LIMIT_NODES, values, strict=True)
        if isinstance(limit, int) and limit > 0
    }
    return CallLimits(**told)


async def read_namespaces(session: UaSession) -> list[str]:
    """The server's NamespaceArray, as it is now."""
    (value,) = await session.read_attributes([NAMESPACE_ARRAY], AttributeIds.Value)
    return [str(uri) for uri in plain(value) or ()]


async def in_batches(items: Sequence[A], size: int, call: Callable[[list[A]], Awaitable[Sequence[B]]]) -> list[B]:
    """`call` on parts of `items`, each of at most `size`; half as many when the server finds that too much.

    Raises:
        uaerrors.UaError: what `call` raised otherwise.
    """
    found: list[B] = []
    while len(found) < len(items):
        part = list(items[len(found) : len(found) + size])
        try:
            results = await call(part)
        except TOO_MUCH:
            if size == 1:
                raise
            size = max(1, min(size, len(part)) // 2)
            continue
        if len(results) != len(part):
            raise uaerrors.BadUnknownResponse
        found += results
    return found


async def read_values(
    session: UaSession,
    wanted: Sequence[tuple[ua.NodeId, AttributeIds]],
    limits: CallLimits,
    ranges: Sequence[str] | None = None,
) -> list[ua.DataValue]:
    """One attribute of each node, in order; of arrays the part that `ranges` says, where it says one."""

    async def call(part: list[ua.ReadValueId]) -> list[ua.DataValue]:
        params = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both)
        params.NodesToRead = part
        return await session.read(params)

    asked = [
        ua.ReadValueId(NodeId=node, AttributeId=attribute, IndexRange=index_range or None)
        for (node, attribute), index_range in zip(wanted, ranges or [""] * len(wanted), strict=True)
    ]
    return await in_batches(asked, limits.read, call)


async def browse(
    session: UaSession,
    nodes: Sequence[ua.NodeId],
    limits: CallLimits,
    *,
    reference: ua.NodeId = HIERARCHICAL,
    inverse: bool = False,
    classes: int = 0,
) -> list[list[ua.ReferenceDescription]]:
    """The references of each node, all of them.

    Args:
        session: an open session.
        nodes: whose references.
        limits: see there.
        reference: their type, with its subtypes.
        inverse: whether to follow them backwards.
        classes: NodeClass bits of what they lead to; 0 for all.

    Returns:
        A list for each node; empty for a node that cannot be browsed.
    """

    async def call(part: list[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
        params = ua.BrowseParameters()
        params.RequestedMaxReferencesPerNode = ua.UInt32(_REFERENCES_PER_NODE)
        params.NodesToBrowse = [
            ua.BrowseDescription(
                NodeId=node,
                BrowseDirection=ua.BrowseDirection.Inverse if inverse else ua.BrowseDirection.Forward,
                ReferenceTypeId=reference,
                IncludeSubtypes=True,
                NodeClassMask=ua.UInt32(classes),
                ResultMask=ua.UInt32(ua.BrowseResultMask.All),
            )
            for node in part
        ]
        results = await session.browse(params)
        found = [list(result.References or ()) for result in results]
        await _rest(session, [(r.ContinuationPoint, f) for r, f in zip(results, found, strict=True)])
        starved = [i for i, r in enumerate(results) if r.StatusCode.value == StatusCodes.BadNoContinuationPoints]
        if starved and len(part) == 1:
            raise uaerrors.BadNoContinuationPoints
        for i in starved:  # the server ran out of them: these nodes alone, now that the others are read
            (found[i],) = await call([part[i]])
        return found

    return await in_batches(list(nodes), limits.browse, call)


async def _rest(session: UaSession, open_points: list[tuple[bytes | None, list[ua.ReferenceDescription]]]) -> None:
    """BrowseNext until every list is whole."""
    waiting = [(point, found) for point, found in open_points if point]
    while waiting:
        endless = [(point, found) for point, found in waiting if len(found) > _LONGEST_LIST]
        if endless:
            log.warning("opcua_browse_cut", references=_LONGEST_LIST, what="a node has more references than are read")
            release = ua.BrowseNextParameters(ReleaseContinuationPoints=True)
            release.ContinuationPoints = [ua.ByteString(point) for point, _ in waiting]
            await session.browse_next(release)
            return
        params = ua.BrowseNextParameters(ReleaseContinuationPoints=False)
        params.ContinuationPoints = [ua.ByteString(point) for point, _ in waiting]
        results = await session.browse_next(params)
        for (_, found), result in zip(waiting, results, strict=True):
            found.extend(result.References or ())
        waiting = [(r.ContinuationPoint, f) for (_, f), r in zip(waiting, results, strict=True) if r.ContinuationPoint]


def plain(value: ua.DataValue) -> Any:
    """The value alone; None if it is absent or Bad."""
    bad = value.StatusCode is not None and value.StatusCode.is_bad()
    return None if bad or value.Value is None else value.Value.Value


def node_text(node: ua.NodeId, namespaces: Sequence[str]) -> str:
    """`nsu=URI;s=…`, which holds whatever the order of namespaces; `i=…` in namespace 0."""
    local = ua.NodeId(node.Identifier, ua.Int16(0), node.NodeIdType).to_string()
    if node.NamespaceIndex == 0:
        return local
    uri = namespaces[node.NamespaceIndex].replace("%", "%25").replace(";", "%3B")
    return f"nsu={uri};{local}"
