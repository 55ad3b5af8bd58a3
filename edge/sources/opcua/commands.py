"""Write and Call on a live session, for actions that the configuration lists; and the same looked at, for `check`.

Nothing else in Fieldlab sends a Write, or a Call on a machine's object. A value becomes the type that the server says
the node or argument has, or is refused: nothing is guessed, rounded or cut.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.actions.command import Answer, CallMethod, Command, Value, WriteNode
from edge.sources.opcua.browse import CallLimits, plain, read_namespaces, read_values
from edge.sources.opcua.browse_paths import resolve_all
from edge.sources.opcua.link import Link
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.variants import NotPossibleError, base_type, to_variant
from fieldlab.errors import ConfigError

_CURRENT_WRITE: Final = 0x02
_HAS_PROPERTY: Final = ua.NodeId(ua.Int32(46))
_LOOK: Final = 10.0  # seconds to find out what a node is
_WORDS: Final = 200  # characters of what a method returned
_UNSAID: Final = frozenset(  # whether it was done, these do not say
    {
        "BadTimeout",
        "BadRequestTimeout",
        "BadConnectionClosed",
        "BadSessionClosed",
        "BadSecureChannelClosed",
        "BadShutdown",
    }
)


class Ready(msgspec.Struct, frozen=True, eq=False):
    """A command that fits the server as it is now.

    Attributes:
        request: what would be sent.
        text: the same in words.
    """

    request: ua.WriteParameters | ua.CallMethodRequest
    text: str


def validate_command(what: WriteNode | CallMethod) -> None:
    """Look at the addresses.

    Raises:
        ConfigError: if one is none, or may mean another node tomorrow. `key` names the key within the `[[action]]`.
    """
    for key, text in _addresses(what).items():
        try:
            address = NodeAddress.parse(text)
        except ValueError as e:
            raise ConfigError(str(e), key=key) from None
        if address.by_index:
            raise ConfigError(
                f"{text!r} is written with an index, which may mean another node after a restart of the server: "
                "write nsu=URI;…",
                key=key,
            )
        if any(segment.wild for segment in address.path):
            raise ConfigError(f"{text!r} may not hold a wildcard: an action is for one node", key=key)


async def execute(link: Link | None, command: Command) -> Answer:
    """Do a command on a session, or say why not. It is sent once at most; see `Commandable`."""
    if link is None or link.session.lost.done():
        return _instead(command, "failed", "the source is not connected: nothing was sent")
    try:
        async with asyncio.timeout(_LOOK):
            ready = await _look(link, command)
    except NotPossibleError as e:
        return _instead(command, "refused", f"{e}: nothing was sent")
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        return _instead(command, "failed", f"{type(e).__name__} while looking at the node: nothing was sent")
    if command.dry:
        return Answer(outcome="dry_run", detail=f"would {ready.text}")
    if time.time_ns() > command.until:
        return Answer(outcome="refused", detail="stale: the server answered too late; nothing was sent")
    return await _send(link.session, ready)


async def _look(link: Link, command: Command) -> Ready:
    if command.signed and not link.choice.policy:
        raise NotPossibleError("the session is not signed")
    return await prepare(link.session, command.what)


def _instead(command: Command, outcome: Any, why: str) -> Answer:
    return (
        Answer(outcome="dry_run", detail=f"would be {outcome}: {why}")
        if command.dry
        else Answer(outcome=outcome, detail=why)
    )


async def _send(session: UaSession, ready: Ready) -> Answer:
    said = ""
    try:
        if isinstance(ready.request, ua.WriteParameters):
            (status,) = await session.write(ready.request)
        else:
            (result,) = await session.call([ready.request])
            status = result.StatusCode
            said = _said(result)
    except uaerrors.UaStatusCodeError as e:
        if type(e).__name__ in _UNSAID:
            return Answer(outcome="unknown", detail=f"sent, and no answer came: {type(e).__name__}")
        return Answer(outcome="refused", detail=type(e).__name__)
    except (uaerrors.UaError, OSError, TimeoutError, ValueError) as e:
        return Answer(outcome="unknown", detail=f"sent, and no answer came: {type(e).__name__}")
    if status.is_bad():
        return Answer(outcome="refused", detail=f"{status.name}{said}")
    return Answer(outcome="done", detail=f"{status.name}{said}")


def _said(result: ua.CallMethodResult) -> str:
    """What a method returned, or which arguments it did not like."""
    wrong = [f"argument {i}: {s.name}" for i, s in enumerate(result.InputArgumentResults or ()) if s.is_bad()]
    gave = [str(v.Value) for v in result.OutputArguments or ()]
    words = "; ".join(wrong) or ", ".join(gave)
    return f": {words[:_WORDS]}" if words else ""


async def prepare(session: UaSession, what: WriteNode | CallMethod) -> Ready:
    """Find the nodes, and make the request. Reads only.

    Raises:
        NotPossibleError: in words, if it does not fit the server as it is now.
        uaerrors.UaError, OSError, TimeoutError: if the server does not answer.
    """
    texts = list(_addresses(what).values())
    namespaces = await read_namespaces(session)
    found = await resolve_all(session, namespaces, {i: NodeAddress.parse(t) for i, t in enumerate(texts)})
    nodes = []
    for i, text in enumerate(texts):
        node = found[i]
        if isinstance(node, str):
            raise NotPossibleError(f"{text}: {node}")
        nodes.append(node)
    if isinstance(what, WriteNode):
        return await _prepare_write(session, what, nodes[0])
    return await _prepare_call(session, what, nodes[0], nodes[1])


async def _prepare_write(session: UaSession, what: WriteNode, node: ua.NodeId) -> Ready:
    ids = AttributeIds
    node_class, data_type, rank, access, user, now = await _attributes(
        session, node, (ids.NodeClass, ids.DataType, ids.ValueRank, ids.AccessLevel, ids.UserAccessLevel, ids.Value)
    )
    if plain(node_class) is None:
        raise NotPossibleError(f"the server has no node {what.node} ({_name(node_class)})")
    if plain(node_class) != ua.NodeClass.Variable:
        raise NotPossibleError(f"{what.node} is not a variable")
    if not (plain(access) or 0) & _CURRENT_WRITE:
        raise NotPossibleError(f"{what.node} is not writable (AccessLevel)")
    if not (plain(user) or 0) & _CURRENT_WRITE:
        raise NotPossibleError(f"{what.node} may not be written by this user (UserAccessLevel)")
    kind = await base_type(session, plain(data_type), now.Value)
    variant = to_variant(what.value, kind, plain(rank))
    await _check_range(session, what, node)
    value = ua.WriteValue(
        NodeId=node, AttributeId=ua.IntegerId(ids.Value), Value=ua.DataValue(Value=variant, StatusCode=None)
    )
    text = f"write {what.value!r} as {kind.name} to {node.to_string()}, which is {str(plain(now))[:60]} now"
    return Ready(ua.WriteParameters(NodesToWrite=[value]), text)


async def _check_range(session: UaSession, what: WriteNode, node: ua.NodeId) -> None:
    """A number beyond the node's EURange (OPC 10000-8, 5.3.2.3) is refused, where it has one."""
    numbers = [
        v for v in (what.value if isinstance(what.value, tuple) else (what.value,)) if isinstance(v, int | float)
    ]
    if not numbers or not (found := await _property(session, node, "EURange")):
        return
    low, high = getattr(found, "Low", None), getattr(found, "High", None)
    if isinstance(low, float) and isinstance(high, float) and high > low:
        for number in numbers:
            if not low <= number <= high:
                raise NotPossibleError(f"{number:g} is out of the range of {what.node}: {low:g} to {high:g} (EURange)")


async def _prepare_call(session: UaSession, what: CallMethod, owner: ua.NodeId, method: ua.NodeId) -> Ready:
    ids = AttributeIds
    (owner_class,) = await _attributes(session, owner, (ids.NodeClass,))
    method_class, can, may = await _attributes(session, method, (ids.NodeClass, ids.Executable, ids.UserExecutable))
    if plain(owner_class) not in (ua.NodeClass.Object, ua.NodeClass.ObjectType):
        raise NotPossibleError(f"{what.object} is no object of the server ({_name(owner_class)})")
    if plain(method_class) != ua.NodeClass.Method:
        raise NotPossibleError(f"{what.method} is no method of the server ({_name(method_class)})")
    if not plain(can):
        raise NotPossibleError(f"{what.method} cannot be called now (Executable)")
    if not plain(may):
        raise NotPossibleError(f"{what.method} may not be called by this user (UserExecutable)")
    wanted = await _property(session, method, "InputArguments") or []
    if len(wanted) != len(what.arguments):
        names = ", ".join(str(a.Name) for a in wanted)
        raise NotPossibleError(f"{what.method} takes {len(wanted)} arguments ({names}), not {len(what.arguments)}")
    given = []
    for argument, value in zip(wanted, what.arguments, strict=True):
        try:
            kind = await base_type(session, argument.DataType, None)
            given.append(to_variant(value, kind, argument.ValueRank))
        except NotPossibleError as e:
            raise NotPossibleError(f"argument {argument.Name}: {e}") from None
    request = ua.CallMethodRequest(ObjectId=owner, MethodId=method, InputArguments=given)
    told = ", ".join(f"{a.Name}={v!r}" for a, v in zip(wanted, what.arguments, strict=True))
    return Ready(request, f"call {method.to_string()} of {owner.to_string()} with ({told})")


async def _attributes(session: UaSession, node: ua.NodeId, attributes: Sequence[AttributeIds]) -> list[ua.DataValue]:
    return await read_values(session, [(node, attribute) for attribute in attributes], CallLimits())


async def _property(session: UaSession, node: ua.NodeId, name: str) -> Any:
    """The value of a property of namespace 0; None if the node has none."""
    no: Any = False  # asyncua's Boolean is no bool for mypy
    element = ua.RelativePathElement(
        ReferenceTypeId=_HAS_PROPERTY, IsInverse=no, IncludeSubtypes=no, TargetName=ua.QualifiedName(name)
    )
    path = ua.BrowsePath(StartingNode=node, RelativePath=ua.RelativePath(Elements=[element]))
    (result,) = await session.translate_browsepaths_to_nodeids([path])
    if not result.StatusCode.is_good() or not result.Targets:
        return None
    target = result.Targets[0].TargetId
    values = await _attributes(
        session, ua.NodeId(target.Identifier, target.NamespaceIndex, target.NodeIdType), (AttributeIds.Value,)
    )
    return plain(values[0])


def _addresses(what: WriteNode | CallMethod) -> dict[str, str]:
    """Key within the `[[action]]` → address."""
    if isinstance(what, WriteNode):
        return {"write.node": what.node}
    return {"call.object": what.object, "call.method": what.method}


def _name(value: ua.DataValue) -> str:
    return str(value.StatusCode.name) if value.StatusCode is not None else "Good"


__all__ = ["Value", "execute", "prepare", "validate_command"]
