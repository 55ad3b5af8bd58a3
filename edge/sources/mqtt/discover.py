"""`fieldlab discover mqtt://…`: listens to a broker for a while and proposes a configuration.

One connection with a random client id, clean start and QoS 0: it takes nothing from anybody and leaves nothing.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from edge.proposal import Proposal, ProposedMachine, ProposedSignal, is_measured
from edge.sources.base import SourceContext
from edge.sources.mqtt.check import Probe
from edge.sources.mqtt.config import MqttConfig, parse_url
from edge.sources.mqtt.payload import JsonPayload, PayloadError
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.topics import TopicTemplate, check_filter, matches
from fieldlab.errors import ConfigError, RefusedError
from fieldlab.model import SignalKind
from fieldlab.model.place import check_name

NATIVE: Final = "fieldlab/{site}/{area}/{line}/{machine}/{signal}"  # DESIGN 5.6
_TOPICS: Final = 10_000
_LARGEST: Final = 65_536  # bytes of a payload that are looked at
_EXACT: Final = 200  # topics named one by one in `topics`
_SHOWN: Final = 20
_VALUES: Final = ("value", "val", "v", "Value", "VALUE", "reading", "data.value", "payload.value")
_TIMES: Final = ("ts", "timestamp", "time", "t", "Timestamp", "datetime", "data.ts", "payload.ts")
_STATUSES: Final = ("status", "quality", "Status")
_LEVELS: Final = ("machine", "line", "area", "site")
_STATE_NAMES: Final = re.compile(r"(state|status|mode)$", re.IGNORECASE)


class Shape(msgspec.Struct, frozen=True):
    """Where value, time and status stand in a payload: keys of a `[[source]]`."""

    value: str
    time: str
    status: str


class Heard(msgspec.Struct):
    """What came on one topic: how often, and the newest payload."""

    messages: int = 0
    payload: bytes = b""
    large: bool = False


class _Group(msgspec.Struct):
    """Topics that one source can read."""

    template: TopicTemplate
    text: str
    shape: Shape
    machine: str
    topics: list[str]


class _Listener(Probe):
    """Keeps the newest payload of every topic."""

    def __init__(self, config: MqttConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.found: dict[str, Heard] = {}
        self.beyond = 0

    def _receive(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        del arrival, mid, qos, redelivered, retained
        name = topic.decode(errors="replace")
        if name.startswith("$"):
            return
        if name not in self.found and len(self.found) >= _TOPICS:
            self.beyond += 1
            return
        heard = self.found.setdefault(name, Heard())
        heard.messages += 1
        heard.large = len(payload) > _LARGEST
        heard.payload = b"" if heard.large else payload


async def discover(
    config: MqttConfig, context: SourceContext, keys: dict[str, Any], *, seconds: float = 5.0
) -> Proposal:
    """What is published on a broker.

    Args:
        config: url, user, TLS and the filters to listen to.
        context: as of an agent.
        keys: the `[[source]]` keys to print, as they were asked for.
        seconds: how long to listen.

    Raises:
        ConfigError: if the url or a filter makes no sense.
        RefusedError: if the broker cannot be reached or refuses.
    """
    parse_url(config.url)
    for each in config.topics:
        try:
            check_filter(each)
        except ValueError as e:
            raise ConfigError(str(e), key="topics") from None
    listener = _Listener(config, context)
    await asyncio.to_thread(listener.run, seconds)
    if not listener.answered or listener.error:
        raise RefusedError(listener.error or f"{config.url} does not answer")
    if set(listener.refused) >= set(listener.asked):
        raise RefusedError(f"{config.url} refused every subscription: {listener.refused}")
    return propose(listener.found, keys, context, seconds=seconds, beyond=listener.beyond)


def propose(
    found: dict[str, Heard], keys: dict[str, Any], context: SourceContext, *, seconds: float, beyond: int = 0
) -> Proposal:
    """The configuration for what was heard."""
    left_out: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for topic, heard in sorted(found.items()):
        try:
            shapes[topic] = _shape_of(topic, heard)
        except ValueError as e:
            left_out[topic] = str(e)
    groups = _groups(shapes, found, left_out)
    sources = tuple(_source(keys, group, groups, left_out) for group in groups)
    notes = [f"listened for {seconds:g} s: {len(found)} topics, {sum(h.messages for h in found.values())} messages."]
    if beyond:
        notes.append(f"{beyond} messages were on topics beyond the first {_TOPICS}.")
    notes += [f"not read: {topic}: {why}" for topic, why in list(left_out.items())[:_SHOWN]]
    if len(left_out) > _SHOWN:
        notes.append(f"not read: {len(left_out) - _SHOWN} more topics, such as {list(left_out)[-1]}")
    machines = _machines(groups, found, context)
    return Proposal(url=keys["url"], sources=sources, machines=machines, notes=tuple(notes), rules=True)


def _shape_of(topic: str, heard: Heard) -> Shape:
    """Where the value of a topic's payload stands.

    Raises:
        ValueError: with the reason why it cannot be read.
    """
    if any(level.startswith("_") for level in topic.split("/")):
        raise ValueError("names that start with _ are never read")
    if topic.startswith("spBv1.0/"):
        raise ValueError('Sparkplug B: write a source with format = "sparkplug" by hand')
    if heard.large:
        raise ValueError(f"payloads of more than {_LARGEST} bytes")
    for level in topic.split("/"):
        check_name(level, "topic level")
    try:
        document = msgspec.json.decode(heard.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("the payload is not JSON, a number or quoted text") from None
    paths = _paths(document)
    times: list[str] = []
    if not isinstance(document, dict):
        candidates = [Shape("", "", "")]
    else:
        times = [path for path in _TIMES if path in paths]
        statuses: list[str] = [path for path in _STATUSES if path in paths]
        values = [path for path in _VALUES if path in paths] or _only(paths, times, statuses)
        native = [Shape("value", "ts", "status")] if "value" in paths else []
        candidates = native + [Shape(v, t, s) for v in values for s in [*statuses, ""] for t in [*times, ""]]
    for shape in dict.fromkeys(candidates):
        if (not times or shape.time in times or shape.time == "") and _reads(shape, heard.payload):
            return shape
    if paths:
        raise ValueError(f"no value that stands out among {', '.join(list(paths)[:8])}; write `value` by hand")
    raise ValueError("the payload holds no number, boolean or text, and no array of them with times")


def _reads(shape: Shape, payload: bytes) -> bool:
    """Whether the source would read `payload`."""
    try:
        return JsonPayload(shape.value, shape.time, shape.status).read(payload, 0, time.time_ns(), Rows()) > 0
    except PayloadError:
        return False


def _paths(document: Any, deep: int = 3) -> dict[str, Any]:
    """Dotted path → leaf."""
    if not isinstance(document, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in document.items():
        if not isinstance(key, str) or not key or "." in key:
            continue
        if isinstance(value, dict) and deep > 1:
            found |= {f"{key}.{path}": leaf for path, leaf in _paths(value, deep - 1).items()}
        else:
            found[key] = value
    return found


def _only(paths: dict[str, Any], times: Sequence[str], statuses: Sequence[str]) -> list[str]:
    """The one number among the leaves, if it is the only one."""
    numbers = [
        path
        for path, leaf in paths.items()
        if isinstance(leaf, int | float) and path not in times and path not in statuses
    ]
    return numbers if len(numbers) == 1 else []


def _joined(
    groups: dict[tuple[int, str, Shape], list[str]], found: dict[str, Heard]
) -> dict[tuple[int, str, Shape], list[str]]:
    """Groups that differ only in having a time or a status at all, made one where all can be read so."""
    joined: dict[tuple[int, str, Shape], list[str]] = {}
    for (depth, first, shape), topics in sorted(groups.items(), key=lambda item: not (item[0][2].time)):
        for (other_depth, other_first, other), known in joined.items():
            if (depth, first, shape.value) == (other_depth, other_first, other.value) and all(
                _reads(other, found[topic].payload) for topic in topics
            ):
                known.extend(topics)
                break
        else:
            joined[depth, first, shape] = list(topics)
    return joined


def _groups(shapes: dict[str, Shape], found: dict[str, Heard], left_out: dict[str, str]) -> list[_Group]:
    """Topics by template and shape. Native topics first; the others by their depth and what they begin with."""
    native = TopicTemplate(NATIVE)
    groups: dict[tuple[str, Shape, str], _Group] = {}
    others: dict[tuple[int, str, Shape], list[str]] = {}
    for topic, shape in shapes.items():
        if native.match(topic):
            groups.setdefault((NATIVE, shape, ""), _Group(native, NATIVE, shape, "", [])).topics.append(topic)
        else:
            levels = topic.split("/")
            others.setdefault((len(levels), levels[0] if len(levels) > 1 else "", shape), []).append(topic)
    for (_, _, shape), topics in _joined(others, found).items():
        text, machine = _template(topics)
        try:
            template = TopicTemplate(text)
        except ValueError as e:
            left_out.update(dict.fromkeys(topics, str(e)))
            continue
        groups[text, shape, machine] = _Group(template, text, shape, machine, topics)
    return list(groups.values())


def _template(topics: Sequence[str]) -> tuple[str, str]:
    """(template, machine where the topic names none): the last level is the signal, the one before it the machine.

    Levels before them that differ are line, area and site; what is left over is any.
    """
    split = [topic.split("/") for topic in topics]
    depth = len(split[0])
    if depth == 1:
        return "{signal}", "broker"
    out = ["{signal}", "{machine}"]
    names = iter(_LEVELS[1:])
    for i in range(depth - 3, -1, -1):
        same = len({levels[i] for levels in split}) == 1
        out.append(split[0][i] if same else f"{{{name}}}" if (name := next(names, "")) else "+")
    return "/".join(reversed(out)), ""


def _source(keys: dict[str, Any], group: _Group, groups: Sequence[_Group], left_out: dict[str, str]) -> dict[str, Any]:
    """A `[[source]]` that reads these topics, and none that it cannot read."""
    table = {**keys, "format": "json", "topics": [group.template.filter], "topic": group.text}
    if group.machine:
        table["machine"] = group.machine
    table |= {"value": group.shape.value, "time": group.shape.time, "status": group.shape.status}
    others = [topic for each in groups if each is not group for topic in each.topics] + list(left_out)
    # What the template does not take, or ignores, does no harm.
    clash = any(matches(group.template.filter, t) and not any(p.startswith("_") for p in t.split("/")) for t in others)
    if clash and len(group.topics) <= _EXACT:
        table["topics"] = sorted(group.topics)
    return table


def _machines(groups: Sequence[_Group], found: dict[str, Heard], context: SourceContext) -> tuple[ProposedMachine, ...]:
    signals: dict[str, dict[str, ProposedSignal]] = {}
    for group in groups:
        for topic in group.topics:
            levels = group.template.match(topic) or {}
            machine = levels.get("machine") or group.machine or context.agent
            name = levels["signal"]
            signals.setdefault(machine, {})[name] = _signal(name, topic, group.shape, found[topic].payload)
    return tuple(
        ProposedMachine(name=machine, why="named by its topics", signals=tuple(known.values()))
        for machine, known in signals.items()
    )


def _signal(name: str, topic: str, shape: Shape, payload: bytes) -> ProposedSignal:
    document = msgspec.json.decode(payload)
    value = _paths(document).get(shape.value) if shape.value else document
    counts = Counter(type(each) for each in value) if isinstance(value, list) else Counter((type(value),))
    text = str in counts
    kind: SignalKind = "gauge"
    states: dict[str, str] = {}
    if text:
        kind = "state" if _STATE_NAMES.search(name) else "text"
    elif bool in counts:
        kind, states = "state", {"0": "false", "1": "true"}
    return ProposedSignal(
        name=name,
        kind=kind,
        states=states,
        address={"topic": topic},
        measured=kind == "gauge" and float in counts and is_measured(name),
        text=text,
        value=str(value)[:60],
    )
