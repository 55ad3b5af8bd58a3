"""The lines of `fieldlab check` for an OPC UA server, over a session of its own."""

import datetime as dt
import time
from typing import Any, Final

from asyncua import ua
from asyncua.ua import uaerrors
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.base import CheckLine, SourceContext
from edge.sources.opcua.browse import read_limits, read_values
from edge.sources.opcua.browse_paths import Wildcards, resolve_all
from edge.sources.opcua.certificates import EXPIRY_WARN_DAYS, days_left
from edge.sources.opcua.config import DeclaredSignal, OpcuaConfig, declared, sampling_of
from edge.sources.opcua.event_check import check_events
from edge.sources.opcua.link import Link, open_link, reason
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.security import read_user
from edge.sources.opcua.subscription import Feed, items_per_call, read_namespaces
from fieldlab.errors import FieldlabError

_CLOCK_WARN: Final = 1.0
_CURRENT_TIME: Final = ua.NodeId(ua.Int32(2258))
_NO_RANGE: Final = ("BadIndexRangeNoData", "BadIndexRangeInvalid")
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
        wild = Wildcards(config)
        config = await wild.expand(link.session, await read_namespaces(link))
        rates = _round if config.mode == "poll" else _rates
        return [
            *_patterns(wild, context.name),
            *_security(link, config, context.name),
            await _clock(link, context.name),
            await _limits(link, config, context.name),
            *_without_repeats([*await _signals(link, config, context), *await rates(link, config, context)]),
        ]
    except (uaerrors.UaError, OSError, TimeoutError) as e:
        return [CheckLine(level="fail", subject=context.name, text=reason(e, config))]
    finally:
        await link.close(keep_subscriptions=False, within=2.0)


def _patterns(wild: Wildcards, name: str) -> list[CheckLine]:
    return [CheckLine(level="fail", subject=f"{name} {node}", text=why) for node, why in wild.wrong.items()]


def _without_repeats(lines: list[CheckLine]) -> list[CheckLine]:
    """One failure a subject is enough: the first says most."""
    failed: set[str] = set()
    kept = []
    for line in lines:
        if line.level != "fail" or line.subject not in failed:
            kept.append(line)
        if line.level == "fail":
            failed.add(line.subject)
    return kept


def _security(link: Link, config: OpcuaConfig, name: str) -> list[CheckLine]:
    if not link.choice.policy:
        text = f"{config.url} is connected without security: anybody on the network can read and change the values"
        lines = [CheckLine(level="warn", subject=name, text=text, data={"security": "none"})]
        if config.username:
            lines.append(CheckLine(level="warn", subject=name, text="the password may travel in the clear"))
        return lines
    certificate = link.server_certificate
    assert certificate is not None
    days = days_left(certificate)
    expiry = certificate.not_valid_after_utc.date().isoformat()
    data = {"security": link.choice.text, "server_certificate_expires": expiry, "days": days}
    trust = "; the agent will trust it at its first connect" if link.first_use else ""
    lines = [
        CheckLine(level="ok", subject=name, text=f"{config.url} is connected with {link.choice.text}{trust}", data=data)
    ]
    user = read_user(config)
    whose = [("the server's certificate", certificate, "renew it at the server")]
    if link.identity is not None:
        whose.append(("this agent's certificate", link.identity.certificate, "run fieldlab certs renew"))
    if user is not None:
        whose.append((f"the user's certificate {config.user_cert_file}", user[0], "have it renewed"))
    for what, one, remedy in whose:
        if days_left(one) < EXPIRY_WARN_DAYS:
            ends = one.not_valid_after_utc.date().isoformat()
            about = {**data, "days": days_left(one), "expires": ends}
            lines.append(CheckLine(level="warn", subject=name, text=f"{what} expires on {ends}: {remedy}", data=about))
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
    asked = [(node, AttributeIds.Value) for node in nodes]
    values = await read_values(link.session, asked, await read_limits(link.session))
    found = {what: _plain(v) for what, v in zip(_LIMITS, values, strict=True)}
    data = {what: limit for what, limit in found.items() if isinstance(limit, int)}
    said = ", ".join(f"{what} {limit or 'unlimited'}" for what, limit in data.items()) or "none told"
    text = f"{len(config.signal)} signals in calls of {await items_per_call(link)}; limits of the server: {said}"
    return CheckLine(level="ok", subject=name, text=text, data=data)


async def _round(link: Link, config: OpcuaConfig, context: SourceContext) -> list[CheckLine]:
    """One round of polling shows whether the server keeps up."""
    namespaces = await read_namespaces(link)
    addresses = {i: NodeAddress.parse(signal.node, signal.start) for i, signal in enumerate(config.signal)}
    found = (await resolve_all(link.session, namespaces, addresses)).items()
    limits = await read_limits(link.session)
    wanted = [(node, AttributeIds.Value) for _, node in found if not isinstance(node, str)]
    if not wanted:
        return []
    before = time.monotonic()
    await read_values(link.session, wanted, limits)
    took = time.monotonic() - before
    asked = min(sampling_of(config, config.signal[i]) for i, node in found if not isinstance(node, str))
    data = {"round": took, "sampling": asked, "signals": len(wanted), "expected_rate": len(wanted) / max(asked, took)}
    text = f"a round of {len(wanted)} signals took {took:.3f} s in calls of {limits.read}; what happens between two "
    text += "rounds is not seen"
    if took > asked:
        text += f". That is longer than `sampling` ({asked:g} s): make it longer, or read fewer signals"
    return [CheckLine(level="warn" if took > asked else "ok", subject=context.name, text=text, data=data)]


async def _rates(link: Link, config: OpcuaConfig, context: SourceContext) -> list[CheckLine]:
    """A subscription with all items, deleted at once, shows what the server makes of our wishes."""
    known = declared(config, context)
    feed = Feed(link, config, known)
    await feed.start()
    asked = float(config.interval)
    rate = feed.running / feed.interval if feed.interval > 0 else 0.0
    data = {
        "interval": asked,
        "revised_interval": feed.interval,
        "keep_alive": feed.keep_alive,
        "lifetime": feed.lifetime,
        "expected_rate": rate,
        "signals": feed.running,
        "slower_sampling": feed.revised_sampling,
        "shorter_queues": feed.revised_queues,
    }
    wrong = []
    if feed.interval > asked * 1.01:
        wrong.append(f"publishes every {feed.interval:g} s, not every {asked:g} s as asked")
    if feed.revised_sampling:
        wrong.append(f"samples {feed.revised_sampling} signals less often than asked: changes in between are not seen")
    if feed.revised_queues:
        wrong.append(f"keeps shorter queues than asked for {feed.revised_queues} signals: raise `interval` with care")
    text = f"publishes every {feed.interval:g} s: about {rate:g} readings/s if every signal changes each time"
    lines = [
        CheckLine(
            level="warn" if wrong else "ok",
            subject=context.name,
            text=f"the server {'; '.join(wrong)}" if wrong else text,
            data=data,
        )
    ]
    for handle, why in feed.missing.items():
        subject = f"{context.name} {known[handle].key.short}"
        lines.append(CheckLine(level="fail", subject=subject, text=f"cannot be subscribed: {why}"))
    return [*lines, *await check_events(link, config, context, feed.id)]


async def _signals(link: Link, config: OpcuaConfig, context: SourceContext) -> list[CheckLine]:
    namespaces = await read_namespaces(link)
    known = declared(config, context)
    lines: dict[int, CheckLine] = {}
    wanted: list[tuple[int, ua.NodeId]] = []
    addresses = {i: NodeAddress.parse(signal.node, signal.start) for i, signal in enumerate(config.signal)}
    for i, node in (await resolve_all(link.session, namespaces, addresses)).items():
        if isinstance(node, str):
            lines[i] = CheckLine(level="fail", subject=f"{context.name} {known[i].key.short}", text=node)
        else:
            wanted.append((i, node))
    asked = [(node, attribute) for _, node in wanted for attribute in _ATTRIBUTES]
    ranges = [config.signal[i].range * (a is AttributeIds.Value) for i, _ in wanted for a in _ATTRIBUTES]
    values = await read_values(link.session, asked, await read_limits(link.session), ranges)
    for n, (i, node) in enumerate(wanted):
        four = values[n * len(_ATTRIBUTES) : (n + 1) * len(_ATTRIBUTES)]
        lines[i] = _signal(f"{context.name} {known[i].key.short}", node, known[i], four, config.signal[i].range)
    by_index = [config.signal[i].name for i, address in addresses.items() if address.by_index]
    ordered = [lines[i] for i in sorted(lines)]
    if by_index:
        text = f"{len(by_index)} nodes are written with ns=, which may change at a restart: write nsu=URI;…"
        ordered.append(CheckLine(level="warn", subject=context.name, text=text, data={"signals": by_index}))
    return ordered


def _signal(subject: str, node: ua.NodeId, known: DeclaredSignal, values: list[ua.DataValue], part: str) -> CheckLine:
    node_class, value, access, rank = values
    where = f"{node.to_string()}[{part}]" if part else node.to_string()
    if not _good(node_class):
        text = f"{where}: {_status_name(node_class)}; browse the server for the right node id"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where, "signal": known.key.short})
    if _plain(node_class) != ua.NodeClass.Variable:
        text = f"{where} is not a variable"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where, "signal": known.key.short})
    rights = _plain(access)
    if isinstance(rights, int) and not rights & _CURRENT_READ:
        text = f"{where} may not be read by this user: ask for the right, or use another `username`"
        return CheckLine(level="fail", subject=subject, text=text, data={"node": where, "signal": known.key.short})
    status = _status_name(value)
    live = _plain(value)
    source = value.SourceTimestamp
    at = source.isoformat() if source is not None else "no source time"
    data = {
        "node": where,
        "signal": known.key.short,
        "value": live if isinstance(live, int | float | str | bool) else str(live),
        "status": status,
        "source_time": source.isoformat() if source is not None else None,
        "array": isinstance(live, list) or _plain(rank) in (0, 1),
    }
    if part:
        data["range"] = part
    shown = f"[{part}] = {live}"[: 60 + len(part)] if part else str(live)[:60]
    text = f"{shown}{' ' + known.info.unit if known.info.unit else ''} · {status} · {at}"
    if _status_name(value) in _NO_RANGE:
        text = f"{where}: {status}: the array has no such elements now; see `range`"
        return CheckLine(level="warn", subject=subject, text=text, data=data)
    if not _good(value):
        return CheckLine(level="warn", subject=subject, text=f"has no good value now: {text}", data=data)
    return CheckLine(level="ok", subject=subject, text=text, data=data)


def _plain(value: ua.DataValue) -> Any:
    return value.Value.Value if value.Value is not None else None


def _good(value: ua.DataValue) -> bool:
    return value.StatusCode is None or value.StatusCode.is_good()


def _status_name(value: ua.DataValue) -> str:
    return str(value.StatusCode.name) if value.StatusCode is not None else "Good"
