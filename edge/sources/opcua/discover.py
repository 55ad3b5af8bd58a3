"""`fieldlab discover opc.tcp://…`: browses a server, read only, and proposes a configuration.

A session of its own; no subscription; the server's certificate is not pinned.
"""

from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.ua import uaerrors

from edge.proposal import Proposal, ProposedMachine, clean_name, unique_names
from edge.sources.base import SourceContext
from edge.sources.opcua.browse import browse
from edge.sources.opcua.config import OpcuaConfig
from edge.sources.opcua.discover_machines import MachineFound, find_machines
from edge.sources.opcua.discover_signals import signals_of, variables_of
from edge.sources.opcua.discover_space import OBJECTS, Space, key_of, read_space
from edge.sources.opcua.event_check import reports_events
from edge.sources.opcua.link import Link, open_link, reason
from fieldlab.errors import RefusedError

log = structlog.get_logger()

_UA: Final = "http://opcfoundation.org/UA/"
_SERVER: Final = ua.NodeId(ua.Int32(2253))
_HAS_EVENT_SOURCE: Final = ua.NodeId(ua.Int32(36))
MAX_NODES: Final = 20_000
_MOST_SIGNALS: Final = 5_000


async def discover(
    config: OpcuaConfig, context: SourceContext, keys: dict[str, Any], *, max_nodes: int = MAX_NODES
) -> Proposal:
    """What a server offers.

    Args:
        config: url, security and user; its signals are not looked at.
        context: as of an agent; its data folder holds our certificate.
        keys: the `[[source]]` keys to print, as they were asked for.
        max_nodes: objects and variables to read at most.

    Raises:
        SecurityRefusedError: as in `open_link`.
        RefusedError: if the server cannot be reached or browsed.
    """
    try:
        link = await open_link(config, context, lambda _: None, pin=False)
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        raise RefusedError(reason(e, config)) from e
    try:
        space = await read_space(link.session, max_nodes=max_nodes)
        machines = await _machines(space)
        events = await _events(link, space, machines)
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        raise RefusedError(f"browsing failed: {reason(e, config)}") from e
    finally:
        await link.close(keep_subscriptions=False, within=2.0)
    notes = [f"{len(space.nodes)} nodes seen, {sum(len(m.signals) for m in machines)} signals; nothing was changed."]
    if space.cut:
        notes.append(f"The server has more: only the first {max_nodes} nodes were looked at (--max-nodes).")
    if config.security == "best" and link.choice.policy:
        notes.append(f"best is {link.choice.text} here.")
    return Proposal(url=config.url, sources=(keys,), machines=tuple(machines), notes=tuple(notes), events=events)


async def _machines(space: Space) -> list[ProposedMachine]:
    found = find_machines(space)
    keys = frozenset(machine.key for machine in found)
    top = key_of(OBJECTS)
    if any(space.nodes[child].variable for child in space.nodes[top].children):
        found.append(MachineFound(top, "variables directly in Objects"))
    names = unique_names([_name(space, machine.key) for machine in found])
    proposed = []
    left = _MOST_SIGNALS
    for machine, name in zip(found, names, strict=True):
        others = keys - {machine.key}
        if machine.key == top:
            others |= {child for child in space.nodes[top].children if not space.nodes[child].variable}
        signals, left_out = await signals_of(space, variables_of(space, machine.key, others))
        if len(signals) > left:
            left_out.append(f"{len(signals) - left} signals beyond the first {_MOST_SIGNALS}")
            signals = signals[:left]
        left -= len(signals)
        if signals:
            proposed.append(
                ProposedMachine(name=name, why=machine.why, signals=tuple(signals), left_out=tuple(left_out))
            )
    return proposed


async def _events(link: Link, space: Space, machines: list[ProposedMachine]) -> tuple[dict[str, Any], ...]:
    """A table for the events of the Server object, where it tells them and something is there to report."""
    if not machines or not await reports_events(link):
        return ()
    alarms = any(space.is_a(key, _UA, "ConditionType") for key in space.nodes)
    (sources,) = await browse(link.session, [_SERVER], space.limits, reference=_HAS_EVENT_SOURCE)
    if not alarms and not sources:
        return ()
    # The Server object tells of all machines; only where there is one can they be said to be of it.
    return ({"machine": machines[0].name if len(machines) == 1 else "server"},)


def _name(space: Space, key: str) -> str:
    """The browse name, which is stable; the display name may change with the language."""
    return "server" if key == key_of(OBJECTS) else clean_name(space.nodes[key].name)
