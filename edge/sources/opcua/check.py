"""The lines of `fieldlab check` for an OPC UA server, over a session of its own."""

import datetime as dt
import time
from typing import Any, Final

from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.base import CheckLine, SourceContext
from edge.sources.opcua.config import DeclaredSignal, OpcuaConfig, declared
from edge.sources.opcua.link import Link, open_link, reason
from edge.sources.opcua.nodes import NodeAddress, UnknownNamespaceError
from edge.sources.opcua.subscription import items_per_call, read_namespaces
from fieldlab.errors import FieldlabError

_CLOCK_WARN: Final = 1.0
_EXPIRY_WARN_DAYS: Final = 30
_READ_AT_ONCE: Final = 250  # four attributes a node: within what small servers take
_CURRENT_TIME: Final = ua.NodeId(ua.Int32(2258))
_CURRENT_READ: Final = 0x01
_ATTRIBUTES: Final = (
    AttributeIds.NodeClass,
    AttributeIds.Value,
    AttributeIds.UserAccessLevel,
    AttributeIds.ValueRank,
)
# What the server says of its limits: OPC 10000-5, 6.3.11 and ServerCapabilities.
_LIMITS: Final = {
    "monitored items a call": 11714,
    "nodes a read": 11705,
    "continuation points": 2735,
}


async def check_source(config: OpcuaConfig, context: SourceContext) -> list[CheckLine]:
    """Try everything that the source would do; nothing is pinned, no subscription stays behind."""
    try:
        link = await open_link(config, context, lambda _: None, pin=False)
    except FieldlabError as e:
        return [CheckLine(level="fail", subject=context.name, text=str(e))]
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        return [CheckLine(level="fail", subject=context.name, text=reason(e, config))]
    try:
        return [
            *_security(link, config, context.name),
            await _clock(link, context.name),
            await _limits(link, config, context.name),
            await _rates(link, config, context.name),
            *await _signals(link, config, context),
        ]
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        return [CheckLine(level="fail", subject=context.name, text=reason(e, config))]
    finally:
        await link.close(keep_subscriptions=False, within=2.0)


def _security(link: Link, config: OpcuaConfig, name: str) -> list[CheckLine]:
    if not link.choice.policy:
        text = f"{config.url} is connected without security: anybody on the network can read and change the values"
        lines = [CheckLine(level="warn", subject=name, text=text, data={"security": "none"})]
        if config.username:
            lines.append(CheckLine(level="warn", subject=name, text="the password may travel in the clear"))
        return lines
    certificate = link.server_certificate
    assert certificate is not None
    days = (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).days
    expiry = certificate.not_valid_after_utc.date().isoformat()
    data = {"security": link.choice.text, "server_certificate_expires": expiry, "days": days}
    trust = "; the agent will trust it at its first connect" if link.first_use else ""
    lines = [
        CheckLine(level="ok", subject=name, text=f"{config.url} is connected with {link.choice.text}{trust}", data=data)
    ]
    if days < _EXPIRY_WARN_DAYS:
        text = f"the server's certificate expires on {expiry}: renew it"
        lines.append(CheckLine(level="warn", subject=name, text=text, data=data))
    return lines


async def _clock(link: Link, name: str) -> CheckLine:
    before = time.time()
    values = await link.session.read_attributes([_CURRENT_TIME], AttributeIds.Value)
    here = (before + time.time()) / 2
    there = _plain(values[0])
    if not isinstance(there, dt.datetime):
        return CheckLine(level="warn", subject=name, text="the server does not tell its time")
    offset = there.replace(tzinfo=there.tzinfo or dt.UTC).timestamp() - here
    level: Any = "ok" if abs(offset) <= _CLOCK_WARN else "warn"
    text = f"the server's clock is {abs(offset):.3f} s {'ahead' if offset > 0 else 'behind'}"
    if level == "warn":
        text += ": its timestamps are kept as they are, so set up NTP on it"
    return CheckLine(level=level, subject=name, text=text, data={"clock_offset": round(offset, 6)})


async def _limits(link: Link, config: OpcuaConfig, name: str) -> CheckLine:
    nodes = [ua.NodeId(ua.Int32(number)) for number in _LIMITS.values()]
    values = await link.session.read_attributes(nodes, AttributeIds.Value)
    found = {what: _plain(v) for what, v in zip(_LIMITS, values, strict=True)}
    data = {what: limit for what, limit in found.items() if isinstance(limit, int)}
    said = ", ".join(f"{what} {limit or 'unlimited'}" for what, limit in data.items()) or "none told"
    text = f"{len(config.signal)} signals in calls of {await items_per_call(link)}; limits of the server: {said}"
    return CheckLine(level="ok", subject=name, text=text, data=data)


async def _rates(link: Link, config: OpcuaConfig, name: str) -> CheckLine:
    """A small subscription, deleted at once, shows what the server makes of the publishing interval."""
    params = ua.CreateSubscriptionParameters()
    params.RequestedPublishingInterval = ua.Double(config.interval * 1000)
    params.RequestedMaxKeepAliveCount = ua.UInt32(10)
    params.RequestedLifetimeCount = ua.UInt32(100)
    params.PublishingEnabled = False
    result = await link.session.create_subscription(params, lambda _: None)
    await link.session.delete_subscriptions([result.SubscriptionId])
    revised = result.RevisedPublishingInterval / 1000
    asked = float(config.interval)
    rate = len(config.signal) / revised if revised > 0 else 0.0
    data = {"interval": asked, "revised_interval": revised, "expected_rate": rate, "signals": len(config.signal)}
    if revised > asked * 1.01:
        text = f"the server publishes every {revised:g} s, not every {asked:g} s as asked"
        return CheckLine(level="warn", subject=name, text=text, data=data)
    text = f"publishes every {revised:g} s: about {rate:g} readings/s if every signal changes each time"
    return CheckLine(level="ok", subject=name, text=text, data=data)


async def _signals(link: Link, config: OpcuaConfig, context: SourceContext) -> list[CheckLine]:
    namespaces = await read_namespaces(link)
    known = declared(config, context)
    lines: dict[int, CheckLine] = {}
    wanted: list[tuple[int, ua.NodeId]] = []
    for i, (signal, about) in enumerate(zip(config.signal, known, strict=True)):
        try:
            wanted.append((i, NodeAddress.parse(signal.node).resolve(namespaces)))
        except UnknownNamespaceError as e:
            lines[i] = CheckLine(level="fail", subject=f"{context.name} {about.key.short}", text=str(e))
    for start in range(0, len(wanted), _READ_AT_ONCE):
        part = wanted[start : start + _READ_AT_ONCE]
        params = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both)
        params.NodesToRead = [
            ua.ReadValueId(NodeId=node, AttributeId=attribute) for _, node in part for attribute in _ATTRIBUTES
        ]
        values = await link.session.read(params)
        for n, (i, node) in enumerate(part):
            four = values[n * len(_ATTRIBUTES) : (n + 1) * len(_ATTRIBUTES)]
            lines[i] = _signal(f"{context.name} {known[i].key.short}", node, known[i], four)
    by_index = [s.name for s in config.signal if NodeAddress.parse(s.node).by_index]
    ordered = [lines[i] for i in sorted(lines)]
    if by_index:
        text = f"{len(by_index)} nodes are written with ns=, which may change at a restart: write nsu=URI;…"
        ordered.append(CheckLine(level="warn", subject=context.name, text=text, data={"signals": by_index}))
    return ordered


def _signal(subject: str, node: ua.NodeId, known: DeclaredSignal, values: list[ua.DataValue]) -> CheckLine:
    node_class, value, access, rank = values
    where = node.to_string()
    if not _good(node_class):
        text = f"{where}: {_status_name(node_class)}; look for the right node with `fieldlab discover`"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where})
    if _plain(node_class) != ua.NodeClass.Variable:
        text = f"{where} is not a variable"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where})
    rights = _plain(access)
    if isinstance(rights, int) and not rights & _CURRENT_READ:
        text = f"{where} may not be read by this user: ask for the right, or use another `username`"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where})
    status = _status_name(value)
    live = _plain(value)
    source = value.SourceTimestamp
    at = source.isoformat() if source is not None else "no source time"
    data = {
        "node": where,
        "value": live if isinstance(live, int | float | str | bool) else str(live),
        "status": status,
        "source_time": source.isoformat() if source is not None else None,
        "array": isinstance(live, list) or _plain(rank) in (0, 1),
    }
    text = f"{str(live)[:60]}{' ' + known.info.unit if known.info.unit else ''} · {status} · {at}"
    if not _good(value):
        return CheckLine(level="warn", subject=subject, text=f"has no good value now: {text}", data=data)
    return CheckLine(level="ok", subject=subject, text=text, data=data)


def _plain(value: ua.DataValue) -> Any:
    return value.Value.Value if value.Value is not None else None


def _good(value: ua.DataValue) -> bool:
    return value.StatusCode is None or value.StatusCode.is_good()


def _status_name(value: ua.DataValue) -> str:
    return str(value.StatusCode.name) if value.StatusCode is not None else "Good"
