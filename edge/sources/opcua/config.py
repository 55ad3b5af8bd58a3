"""The `[[source]]` table of kind "opcua", and what it declares about signals."""

import math
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

import msgspec

from edge.sources.base import SourceContext
from edge.sources.opcua.nodes import NodeAddress
from edge.sources.opcua.ranges import first_of
from fieldlab.config import Duration
from fieldlab.errors import ConfigError
from fieldlab.model import Place, SignalInfo, SignalKey, SignalKind
from fieldlab.model.place import check_name
from fieldlab.secrets import remember

MIN_QUEUE = 10


class OpcuaSignal(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[source.signal]]` table: one node of the server.

    Attributes:
        name: the signal's name on its machine; an array becomes `name[0]`, `name[1]`, … Where `node` stands for
            several nodes, `{1}` is what its first wildcard fits, and so on, and `{0}` the instance of `type`.
        node: NodeId as text, best as `nsu=URI;s=…`; or a browse path `/Objects/nsu=URI;Machine/nsu=URI;Load`, with
            `*` in it for several nodes.
        start: NodeId that the path starts from; Root if absent.
        type: NodeId of an object type: the path starts from each of its instances.
        machine: the machine, where it is not the source's.
        unit: as printed.
        kind: gauge, counter, state or text.
        lsl: lower specification limit, in `unit`.
        usl: upper specification limit, in `unit`.
        target: nominal value, in `unit`.
        scale: value = raw * scale + offset.
        offset: see `scale`.
        map: number → text, for states.
        sampling: how often the server looks at the value; the source's if absent. `"0ms"` asks for every change.
        queue: how many values the server keeps between two publishes.
        range: which elements of an array to read, such as `"2:5"`; they keep their index in the name.
        deadband: the server sends a change only if it is larger: in raw units, or `"2%"` of the node's EURange.
    """

    name: str
    node: str
    machine: str = ""
    start: str = ""
    type: str = ""
    unit: str = ""
    kind: SignalKind = "gauge"
    lsl: float | None = None
    usl: float | None = None
    target: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    map: dict[str, str] = {}
    sampling: Duration | None = None
    queue: int | None = None
    range: str = ""
    deadband: float | str | None = None


class OpcuaEvents(msgspec.Struct, frozen=True, kw_only=True):
    """A `[[source.events]]` table: events, alarms and conditions of one notifier, for one machine.

    Attributes:
        node: the notifier: NodeId as text, or a browse path. The Server object, which reports everything, if absent.
        machine: the machine that they are rows of, where it is not the source's.
        types: names or NodeIds of event types; these and their subtypes are wanted.
        severity: only events of at least this severity, 1 to 1000.
        queue: how many events the server keeps between two publishes.
    """

    node: str = "i=2253"
    machine: str = ""
    types: tuple[str, ...] = ("BaseEventType",)
    severity: int = 0
    queue: int = 1000


class OpcuaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[[source]]` table: one OPC UA server, which may serve several machines.

    Attributes:
        kind: "opcua".
        url: `opc.tcp://host:port/path`, without user name and password.
        signal: what to read.
        events: what to be told of: events, alarms and conditions.
        machine: default machine of the signals.
        site: instead of `[place]`.
        area: instead of `[place]`.
        line: instead of `[place]`.
        security: "best", "none", or "Policy/Mode" such as "Basic256Sha256/SignAndEncrypt".
        username: user name; anonymous if empty.
        password_file: a file that only its owner may read.
        user_cert_file: the user's certificate (X.509, DER or PEM), instead of a user name.
        user_key_file: its private key (PEM or DER, without a password); only its owner may read it.
        trust: `first-use` trusts the certificate that a server shows at the first connect; `listed` only what
            `fieldlab certs trust` has listed.
        mode: `poll` reads every `sampling`, for servers without subscriptions; what happens in between is not seen.
        interval: publishing interval.
        sampling: default of the signals; `interval` if absent.
        queue: default of the signals; at least ten values a publish if absent.
        deadband: default of the signals; none if absent.
        timeout: how long a request may take.
        keep_alive: how often a silent server has to say that it lives; three times that without a word is a loss.
        lifetime: how long the server keeps a subscription that nobody asks for.
        stale: an item that is silent for longer is read once; if the server has another value, it is made anew.
        retry_missing: how often nodes that were refused are tried again.
        publish_requests: how many Publish requests wait at the server.
        history: `auto` reads gaps again from the server's history, where it keeps one; `off` does not.
        history_max: how far back history is read.
    """

    kind: Literal["opcua"]
    url: str
    signal: tuple[OpcuaSignal, ...] = ()
    events: tuple[OpcuaEvents, ...] = ()
    machine: str = ""
    site: str = ""
    area: str = ""
    line: str = ""
    security: str = "best"
    username: str = ""
    password_file: Path | None = None
    user_cert_file: Path | None = None
    user_key_file: Path | None = None
    trust: Literal["first-use", "listed"] = "first-use"
    mode: Literal["subscribe", "poll"] = "subscribe"
    interval: Duration = Duration(0.1)
    sampling: Duration | None = None
    queue: int | None = None
    deadband: float | str | None = None
    timeout: Duration = Duration(4.0)
    keep_alive: Duration = Duration(2.0)
    lifetime: Duration = Duration(60.0)
    stale: Duration = Duration(60.0)
    retry_missing: Duration = Duration(10.0)
    publish_requests: int = 4
    history: Literal["auto", "off"] = "auto"
    history_max: Duration = Duration(7 * 86_400.0)


class DeclaredSignal(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about a signal. It holds for every element `name[i]` of an array as well.

    Attributes:
        key: which signal.
        info: what is known of it.
        scale: value = raw * scale + offset.
        offset: see `scale`.
        map: number → text, for states.
        first: index of the first element that is read of an array.
    """

    key: SignalKey
    info: SignalInfo
    scale: float = 1.0
    offset: float = 0.0
    map: dict[str, str] = {}
    first: int = 0


def declared(config: OpcuaConfig, context: SourceContext) -> list[DeclaredSignal]:
    """What the table declares, one for each `[[source.signal]]`, in order.

    Raises:
        ConfigError: if a place or a name is not valid. `key` names the key within the table.
    """
    found = []
    for i, signal in enumerate(config.signal):
        machine = signal.machine or config.machine
        if not machine:
            raise ConfigError("needs a machine, here or in the source", key=f"signal[{i}].machine")
        levels = (config.site or context.site, config.area or context.area, config.line or context.line, machine)
        try:
            place = Place(*(check_name(level, "place level") for level in levels))
            key = SignalKey(place, check_name(signal.name, "signal"))
        except ValueError as e:
            raise ConfigError(str(e), key=f"signal[{i}].name") from None
        info = SignalInfo(
            key=key,
            unit=signal.unit,
            kind=signal.kind,
            lsl=signal.lsl,
            usl=signal.usl,
            target=signal.target,
            guarantee="sampled" if config.mode == "poll" else "end-to-end",
            states=signal.map,
        )
        try:
            first = first_of(signal.range)
        except ValueError as e:
            raise ConfigError(str(e), key=f"signal[{i}].range") from None
        found.append(
            DeclaredSignal(
                key=key, info=info, scale=signal.scale, offset=signal.offset, map=dict(signal.map), first=first
            )
        )
    return found


def event_places(config: OpcuaConfig, context: SourceContext) -> list[Place]:
    """The machine of each `[[source.events]]`, in order.

    Raises:
        ConfigError: if a place is not valid. `key` names the key within the table.
    """
    found = []
    for i, table in enumerate(config.events):
        machine = table.machine or config.machine
        if not machine:
            raise ConfigError("needs a machine, here or in the source", key=f"events[{i}].machine")
        levels = (config.site or context.site, config.area or context.area, config.line or context.line, machine)
        try:
            found.append(Place(*(check_name(level, "place level") for level in levels)))
        except ValueError as e:
            raise ConfigError(str(e), key=f"events[{i}].machine") from None
    return found


def queue_size(config: OpcuaConfig, signal: OpcuaSignal) -> int:
    """Values that the server is asked to keep between two publishes: at least ten, and ten times what is expected."""
    chosen = signal.queue if signal.queue is not None else config.queue
    if chosen is not None:
        return chosen
    sampling = sampling_of(config, signal)
    expected = math.ceil(config.interval / sampling) if sampling > 0 else 100
    return MIN_QUEUE * max(1, min(expected, 1000))


def sampling_of(config: OpcuaConfig, signal: OpcuaSignal) -> float:
    """Sampling interval in seconds; 0 asks for every change."""
    if signal.sampling is not None:
        return signal.sampling
    return config.interval if config.sampling is None else config.sampling


def validate(config: OpcuaConfig, context: SourceContext) -> None:
    """Look at the table as a whole.

    Raises:
        ConfigError: if it makes no sense. `key` names the key within the table.
    """
    validate_connection(config)
    if not config.signal and not config.events:
        raise ConfigError("needs at least one [[source.signal]], or [[source.events]]", key="signal")
    _check_events(config, context)
    if not 1 <= config.publish_requests <= 100:
        raise ConfigError("must be 1 to 100", key="publish_requests")
    for key in ("interval", "timeout", "keep_alive", "lifetime", "stale", "retry_missing", "history_max"):
        if getattr(config, key) <= 0:
            raise ConfigError("must be more than zero", key=key)
    _check_deadband(config.deadband, "deadband", config)
    seen: dict[SignalKey, int] = {}
    for i, (signal, known) in enumerate(zip(config.signal, declared(config, context), strict=True)):
        if known.key in seen:
            raise ConfigError(f"{known.key.short} is signal[{seen[known.key]}] already", key=f"signal[{i}].name")
        seen[known.key] = i
        _check_deadband(signal.deadband, f"signal[{i}].deadband", config)
        for key, value in (("queue", signal.queue), ("queue", config.queue)):
            if value is not None and value < 1:
                raise ConfigError("must be at least 1", key=f"signal[{i}].{key}")
        _check_node(signal, i)


def _check_events(config: OpcuaConfig, context: SourceContext) -> None:
    if config.events and config.mode == "poll":
        raise ConfigError('are told in a subscription: not with mode = "poll"', key="events")
    event_places(config, context)
    for i, table in enumerate(config.events):
        try:
            address = NodeAddress.parse(table.node)
        except ValueError as e:
            raise ConfigError(str(e), key=f"events[{i}].node") from None
        if any(segment.wild for segment in address.path):
            raise ConfigError("is one notifier: write a table for each, without `*`", key=f"events[{i}].node")
        if not table.types or not all(table.types):
            raise ConfigError('must name event types, such as ["AlarmConditionType"]', key=f"events[{i}].types")
        if not 0 <= table.severity <= 1000:
            raise ConfigError("must be 0 to 1000", key=f"events[{i}].severity")
        if not 2 <= table.queue <= 1_000_000:
            raise ConfigError("must be 2 to 1000000", key=f"events[{i}].queue")


def _check_node(signal: OpcuaSignal, i: int) -> None:
    try:
        address = NodeAddress.parse(signal.node, signal.start or signal.type)
    except ValueError as e:
        raise ConfigError(str(e), key=f"signal[{i}].node") from None
    if signal.type and signal.start:
        raise ConfigError("give `start` or `type`, not both", key=f"signal[{i}].type")
    words = sum(segment.wild for segment in address.path)
    known = {f"{{{n}}}" for n in range(1, words + 1)} | ({"{0}"} if signal.type else set())
    used = set(re.findall(r"\{\d\}", signal.name + signal.machine))
    if used - known:
        raise ConfigError(f"{min(used - known)} stands for no wildcard of `node`", key=f"signal[{i}].name")
    if known and not used:
        text = f"`node` stands for several nodes: write {' or '.join(sorted(known))} in `name` or `machine`"
        raise ConfigError(text, key=f"signal[{i}].name")


def validate_connection(config: OpcuaConfig) -> None:
    """Look at what is needed to connect.

    Raises:
        ConfigError: as `validate`.
    """
    _check_url(config.url)
    if config.timeout <= 0:
        raise ConfigError("must be more than zero", key="timeout")
    if config.password_file is not None and not config.username:
        raise ConfigError("needs `username` beside it", key="password_file")
    for key, other in (("user_cert_file", "user_key_file"), ("user_key_file", "user_cert_file")):
        if getattr(config, key) is not None and getattr(config, other) is None:
            raise ConfigError(f"needs `{other}` beside it", key=key)
    if config.user_cert_file is not None and config.username:
        raise ConfigError("stands instead of `username`: give one of them", key="user_cert_file")
    if config.user_cert_file is not None and config.security == "none":
        raise ConfigError("needs security: an X.509 user proves itself by a signature over it", key="user_cert_file")


def deadband_of(config: OpcuaConfig, signal: OpcuaSignal) -> tuple[float, bool] | None:
    """(size, whether it is in percent of EURange), or None for no deadband."""
    return _deadband(config.deadband if signal.deadband is None else signal.deadband)


def _deadband(chosen: float | str | None) -> tuple[float, bool] | None:
    """Read a deadband.

    Raises:
        ValueError: if it is none.
    """
    if chosen is None:
        return None
    percent = isinstance(chosen, str)
    if isinstance(chosen, str) and not chosen.strip().endswith("%"):
        raise ValueError(f'{chosen!r} must be a number, or percent of EURange such as "2%"')
    size = float(chosen.strip()[:-1]) if isinstance(chosen, str) else float(chosen)
    if not math.isfinite(size) or size < 0 or (percent and size > 100):
        raise ValueError(f"{chosen!r} must be at least 0, and at most 100 in percent")
    return (size, percent) if size else None


def _check_deadband(chosen: float | str | None, key: str, config: OpcuaConfig) -> None:
    try:
        found = _deadband(chosen)
    except ValueError as e:
        raise ConfigError(str(e), key=key) from None
    if found is not None and config.mode == "poll":
        raise ConfigError('is the work of a subscription: not with mode = "poll"', key=key)


def _check_url(url: str) -> None:
    try:
        parsed = urlparse(url)
        port = parsed.port
    except ValueError:
        port = None
        parsed = urlparse("")
    if parsed.scheme != "opc.tcp" or not parsed.hostname or port is None:
        raise ConfigError(f"{url!r} must look like opc.tcp://host:4840 (with the port)", key="url")
    if parsed.username or parsed.password:
        raise ConfigError("may not hold a user name or password: use `username` and `password_file`", key="url")


def read_password(config: OpcuaConfig) -> str:
    """The password, or an empty text if there is none.

    Raises:
        ConfigError: if the file cannot be read, or others may read it.
    """
    path = config.password_file
    if path is None:
        return ""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; run chmod 600 on it", key="password_file")
        return remember(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path} cannot be read: {e}", key="password_file") from None
