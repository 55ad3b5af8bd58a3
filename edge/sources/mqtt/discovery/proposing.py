"""What was heard → the configuration that reads it. Every source is tried on the messages before it is proposed."""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from edge.proposal import Proposal, ProposedMachine, ProposedSignal, ProposedTopic, is_measured
from edge.sources.base import SourceContext
from edge.sources.mqtt.discovery.devices import PARTS, Planned, plan
from edge.sources.mqtt.discovery.generic import Group, groups, shapes, source_of
from edge.sources.mqtt.discovery.heard import Heard, Tally, in_order
from edge.sources.mqtt.discovery.recognise import JSON, PLAIN, SPARKPLUG, claims
from edge.sources.mqtt.discovery.replay import Found, Replay
from edge.sources.mqtt.discovery.shapes import Shape, Shaped, reads
from edge.sources.mqtt.sparkplug.naming import parse
from fieldlab.errors import ConfigError
from fieldlab.model import SignalKey, SignalKind

_SHOWN: Final = 40
_STATE_NAMES: Final = re.compile(r"(state|status|mode)$", re.IGNORECASE)
_PHYSICAL: Final = ("°C", "rpm", "V")  # units of what a device measures and does not choose
_TYPES: Final = {int: "integer", float: "number", bool: "boolean", str: "text", type(None): "null"}


class Proposing:
    """Plans sources one after another; no two of them may read one signal.

    Args:
        tally: what was heard.
        keys: of every `[[source]]`: url, user, TLS.
        context: as of an agent.
    """

    def __init__(self, tally: Tally, keys: dict[str, Any], context: SourceContext) -> None:
        self._heard, self._keys, self._context = tally.topics, keys, context
        self.left_out: dict[str, str] = {}
        self.sources: list[dict[str, Any]] = []
        self.machines: dict[str, list[tuple[Found, str]]] = {}
        self.why: dict[str, str] = {}
        self.formats: dict[str, str] = {}
        self.units: dict[SignalKey, str] = {}
        self.beside: list[str] = []
        self._owned: dict[SignalKey, str] = {}

    def run(self) -> None:
        """Plan everything."""
        payloads = {topic: [each.payload for each in heard.kept] for topic, heard in self._heard.items()}
        claimed, self.left_out = claims(payloads)
        for planned in plan(claimed, self._context, self.left_out):
            try:
                self._add(planned, self._try(planned))
            except ConfigError as e:
                self.left_out.update(dict.fromkeys(planned.topics, str(e)))
        taken = {topic for claim in claimed for topic in claim.topics} | self.left_out.keys()
        shaped = shapes(self._heard, sorted(self._heard.keys() - taken), self.left_out)
        every = groups(shaped, self._reads)
        foreign = [*taken, *(topic for topic in self.left_out if topic not in taken)]
        for group in every:
            others = [*foreign, *(topic for each in every if each is not group for topic in each.topics)]
            self._group(group, shaped, others)

    def _reads(self, topic: str, shape: Shape) -> bool:
        return reads(shape, self._heard[topic].kept[-1].payload)

    def _try(self, planned: Planned) -> Replay:
        """The planned source, after it has read what was heard.

        Raises:
            ConfigError: if it makes no sense.
        """
        replay = Replay(self._keys | planned.keys, self._context)
        replay.play(in_order(self._heard, planned.topics))
        return replay

    def _group(self, group: Group, shaped: dict[str, Shaped], others: Sequence[str]) -> None:
        """Add the source of a group, with a template that keeps its signals apart from all others."""
        while group.topics:
            best: tuple[dict[str, str], Group] | None = None
            for template in _templates(group.template):
                tried = Group(template, group.shape, group.machine, group.topics)
                try:
                    replay = self._try(source_of(tried, shaped, others))
                except ConfigError as e:
                    self.left_out.update(dict.fromkeys(group.topics, str(e)))
                    return
                mixed = self._mixed(replay)
                if not mixed:
                    planned = source_of(tried, shaped, others)
                    for found in replay.signals.values():
                        self._know(found, shaped)
                    self._add(planned, replay)
                    return
                if best is None or len(mixed) < len(best[0]):
                    best = (mixed, tried)
            if best is None:
                return
            self.left_out.update(best[0])
            others = [*others, *best[0]]
            group = Group(best[1].template, group.shape, group.machine, [t for t in group.topics if t not in best[0]])

    def _mixed(self, replay: Replay) -> dict[str, str]:
        """Topics whose signals another topic has already, with the reason."""
        found: dict[str, str] = {}
        for key, each in replay.signals.items():
            topics = sorted(each.topics)
            owner = self._owned.get(key)
            if owner is None and topics:
                owner, topics = topics[0], topics[1:]
            for topic in topics:
                found[topic] = f"it would be {key.short}, as {owner} is; write a `topic` that tells them apart"
        return found

    def _know(self, found: Found, shaped: dict[str, Shaped]) -> None:
        """The unit of a signal of JSON."""
        for topic in found.topics:
            each = shaped[topic]
            for path, unit in each.units.items():
                name = found.key.name
                if not each.shape.many or name == path or name.endswith(f".{path}") or f"{name}." in f"{path}.":
                    self.units[found.key] = unit

    def _add(self, planned: Planned, replay: Replay) -> None:
        name = planned.keys["format"]
        for topic in planned.topics:
            if topic not in replay.read and topic in replay.errors:
                self.left_out[topic] = replay.errors[topic]
            else:
                self.formats[topic] = name
        self.sources.append(self._keys | planned.keys)
        for key, found in replay.signals.items():
            if not found.kinds:
                continue
            self._owned.setdefault(key, next(iter(sorted(found.topics)), ""))
            self.machines.setdefault(key.place.machine, []).append((found, name))
            self.why.setdefault(key.place.machine, planned.why)
        if name == SPARKPLUG:
            for topic in planned.topics:
                told = parse(topic.encode())
                machine = told.device or told.node
                if told.kind[1:] == "DATA" and machine not in self.machines:
                    self.beside.append(
                        f"{machine}: its birth was not heard, so its metrics are not known; the agent asks for it"
                    )

    def proposal(self, notes: Iterable[str], seconds: float) -> Proposal:
        """All of it."""
        machines = tuple(self._machine(name, found) for name, found in self.machines.items())
        told = [*notes, *dict.fromkeys(self.beside)]
        told += [f"not read: {topic}: {why}" for topic, why in list(self.left_out.items())[:_SHOWN]]
        if len(self.left_out) > _SHOWN:
            told.append(f"not read: {len(self.left_out) - _SHOWN} more topics, such as {list(self.left_out)[-1]}")
        kinds: dict[str, set[type]] = {}
        for found, _ in itertools.chain.from_iterable(self.machines.values()):
            for topic in found.topics:
                kinds.setdefault(topic, set()).update(found.kinds)
        topics = tuple(
            self._topic(topic, heard, kinds.get(topic, set()), seconds) for topic, heard in sorted(self._heard.items())
        )
        url = self._keys["url"]
        return Proposal(
            url=url, sources=tuple(self.sources), machines=machines, notes=tuple(told), rules=True, topics=topics
        )

    def _topic(self, topic: str, heard: Heard, kinds: set[type], seconds: float) -> ProposedTopic:
        return ProposedTopic(
            topic=topic,
            format=self.formats.get(topic, ""),
            messages=heard.live,
            retained=heard.retained,
            rate=heard.live / seconds,
            types=tuple(sorted(_TYPES.get(kind, kind.__name__) for kind in kinds)),
            not_read=self.left_out.get(topic, ""),
        )

    def _machine(self, name: str, found: list[tuple[Found, str]]) -> ProposedMachine:
        part = next((PARTS[form] for _, form in found if form in PARTS), None)
        places = {each.key.place for each, _ in found}
        place = next(iter(places)) if len(places) == 1 else None
        return ProposedMachine(
            name=name,
            why=self.why[name],
            place=None if place is None else (place.site, place.area, place.line),
            signals=tuple({each.key.name: self._signal(each, form) for each, form in found}.values()),
            part=part or {},
        )

    def _signal(self, found: Found, form: str) -> ProposedSignal:
        name, info, kinds = found.key.name, found.info, found.kinds
        kind: SignalKind = "gauge" if info is None else info.kind
        states = {} if info is None else info.states
        unit = self.units.get(found.key, "") if info is None else info.unit
        described = form not in (JSON, PLAIN)
        text = str in kinds
        if form in (JSON, PLAIN, SPARKPLUG):
            if bool in kinds and not kinds & {int, float, str}:
                kind, states, described = "state", {"0": "false", "1": "true"}, False
            elif text and info is None and not kinds & {int, float}:
                kind = "state" if _STATE_NAMES.search(name) and form != SPARKPLUG else "text"
            measured = kind == "gauge" and float in kinds and is_measured(name)
        else:
            measured = kind == "gauge" and unit in _PHYSICAL and is_measured(name)
        return ProposedSignal(
            name=name,
            kind=kind,
            unit=unit,
            states=states,
            address={"topic": min(found.topics, default="")},
            measured=measured,
            text=text,
            value=str(found.value)[:60],
            described=described,
        )


def _templates(template: str) -> list[str]:
    """A template, and others that name one more place: a level that stands for itself becomes line, area or site."""
    found = [template]
    levels = template.split("/")
    for place in ("line", "area", "site"):
        if f"{{{place}}}" in template:
            continue
        for i, level in enumerate(levels):
            if "{" not in level and level != "+":
                found.append("/".join([*levels[:i], f"{{{place}}}", *levels[i + 1 :]]))
        break
    return found


def propose(tally: Tally, keys: dict[str, Any], context: SourceContext, *, seconds: float) -> Proposal:
    """The configuration for what was heard.

    Args:
        tally: what was heard.
        keys: the `[[source]]` keys that every source has.
        context: as of an agent.
        seconds: how long was listened.
    """
    made = Proposing(tally, keys, context)
    made.run()
    notes = [f"listened for {seconds:.3g} s: {len(tally.topics)} topics, {tally.messages} messages."]
    if tally.beyond:
        notes.append(
            f"{tally.beyond} messages were on topics beyond the first {len(tally.topics)}, which were not looked at; "
            "narrow it with --topics."
        )
    return made.proposal(notes, seconds)
