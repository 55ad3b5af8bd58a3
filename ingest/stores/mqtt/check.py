"""What `fieldlab check` says of a store of kind `mqtt`: the plan, and whether the broker lets us follow it.

Rights can only be found out by trying. What is tried is an empty message on a topic with a name that starts with `_`,
which no agent ever reads.
"""

import threading
import uuid
from collections.abc import Iterator
from typing import Literal

import msgspec

from fieldlab.errors import ConfigError
from ingest.stores.base import StoreCheck, StoreContext, StoreError
from ingest.stores.mqtt.config import MqttConfig, broker, published
from ingest.stores.mqtt.connection import Connection, Message
from ingest.stores.mqtt.edge_node import NAMESPACE

_PATIENCE = 1.0  # s that a host's retained STATE may take to come
_PROBE = "_check"


def check(config: MqttConfig, context: StoreContext) -> list[StoreCheck]:
    """Every line, the plan first. Connects with a client id of its own."""
    try:
        broker(config)
        connection = Connection(config, f"check-{uuid.uuid4().hex[:12]}")
        connection.open()
    except (ConfigError, StoreError) as e:
        return [StoreCheck(level="fail", text=str(e))]
    lines = [_line("ok", f"{config.url} lets {config.username or 'anybody'} in"), *_plan(config, context)]
    try:
        lines += _rights(config, context, connection)
    except StoreError as e:
        lines.append(_line("fail", str(e)))
    finally:
        connection.close()
    if config.format == "sparkplug" and config.sparkplug.host:
        lines.append(_host(config))
    return lines


def _plan(config: MqttConfig, context: StoreContext) -> Iterator[StoreCheck]:
    place = f"{config.prefix}/{context.place or '<site>/<area>/<line>'}/<machine>"
    yield _line("ok", f"findings go to {place}/_finding, verdicts and part events to {place}/_part, with QoS 1")
    globs = ", ".join(config.signals)
    if config.format == "sparkplug":
        node = config.sparkplug
        name = node.node or context.agent
        wait = f"; they wait for host {node.host!r}" if node.host else ""
        yield _line(
            "ok",
            f"readings of {globs} go out as Sparkplug B edge node {node.group}/{name}, with QoS {node.qos}:"
            f" {NAMESPACE}/{node.group}/DDATA/{name}/{node.device}{wait}",
        )
    elif config.readings:
        yield _line("ok", f"readings of {globs} go to {place}/<signal>, with QoS 1")
    else:
        yield _line("ok", 'readings are not published; write readings = true, or format = "sparkplug", if they should')


def _rights(config: MqttConfig, context: StoreContext, connection: Connection) -> Iterator[StoreCheck]:
    topics = _probes(config, context)
    refused = connection.publish([Message(topic, b"") for topic in topics])
    for i, topic in enumerate(topics):
        if i in refused:
            yield _line("fail", f"may not publish on {topic}: {refused[i]}; see the broker's access list")
        elif config.protocol != "5":
            yield _line("warn", f"MQTT 3.1.1 cannot say whether the broker lets us publish on {topic}")
        else:
            yield _line("ok", f"may publish on {topic}")
    if config.format == "sparkplug":
        commands = f"{NAMESPACE}/{config.sparkplug.group}/NCMD/{config.sparkplug.node or context.agent}"
        for topic, words in connection.subscribe([commands]).items():
            yield _line("fail", f"may not subscribe to {topic}: {words}; a host could not ask for births")


def _probes(config: MqttConfig, context: StoreContext) -> list[str]:
    place = f"{config.prefix}/{context.place or '/'.join([_PROBE] * 3)}"
    if config.format == "sparkplug":
        own = f"{NAMESPACE}/{config.sparkplug.group}/{_PROBE.upper()}/{config.sparkplug.node or context.agent}"
        return [f"{place}/{_PROBE}/_finding", own]
    machines = [topic.split("/")[-2] for topic in published(config, context.agent)]
    named = [_PROBE if machine == "+" else machine for machine in machines] or [_PROBE]
    return [f"{place}/{machine}/{_PROBE}" for machine in dict.fromkeys(named)]


def _host(config: MqttConfig) -> StoreCheck:
    """Whether the primary host is there now."""
    node = config.sparkplug
    topic = f"{NAMESPACE}/STATE/{node.host}" if node.state == "3.0" else f"STATE/{node.host}"
    said: list[bytes] = []
    heard = threading.Event()

    def take(_topic: str, payload: bytes) -> None:
        said.append(payload)
        heard.set()

    try:
        connection = Connection(config, f"check-{uuid.uuid4().hex[:12]}", on_message=take)
        connection.open()
        try:
            if refused := connection.subscribe([topic]):
                return _line("fail", f"may not subscribe to {topic}: {refused[topic]}; readings would wait for ever")
            heard.wait(_PATIENCE)
        finally:
            connection.close()
    except StoreError as e:
        return _line("fail", str(e))
    if said and _online(said[-1], three=node.state == "3.0"):
        return _line("ok", f"host {node.host!r} is online")
    words = f"says on {topic} that it is not" if said else f"has said nothing on {topic}"
    return _line("warn", f"host {node.host!r} is not online, it {words}: readings wait in the journal until it is")


def _online(state: bytes, *, three: bool) -> bool:
    if not three:
        return state == b"ONLINE"
    try:
        return msgspec.json.decode(state).get("online") is True
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return False


def _line(level: Literal["ok", "warn", "fail"], text: str) -> StoreCheck:
    return StoreCheck(level=level, text=text)
