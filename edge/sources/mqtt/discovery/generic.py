"""Sources for JSON and plain numbers: topics of one form and one shape of payload, a source each."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from edge.sources.mqtt.config import NATIVE
from edge.sources.mqtt.discovery.devices import Planned
from edge.sources.mqtt.discovery.heard import Heard
from edge.sources.mqtt.discovery.leaves import names_of
from edge.sources.mqtt.discovery.recognise import JSON, PLAIN
from edge.sources.mqtt.discovery.shapes import Shape, Shaped, shape_of
from edge.sources.mqtt.topics import TopicTemplate, matches

_EXACT: Final = 500  # topics named one by one in `topics`
_FIELDS: Final = 300  # values named one by one in `values`
_PLACES: Final = ("line", "area", "site")
_NATIVE: Final = TopicTemplate(NATIVE)
_Key = tuple[int, str, Shape]


class Group(msgspec.Struct):
    """Topics that one source can read.

    Attributes:
        template: `topic`.
        shape: of the payloads.
        machine: where the topic names none.
        topics: those that were heard.
    """

    template: str
    shape: Shape
    machine: str
    topics: list[str]


def shapes(heard: dict[str, Heard], topics: Sequence[str], left_out: dict[str, str]) -> dict[str, Shaped]:
    """The shape of each topic that can be read; the others go to `left_out`."""
    found = {}
    for topic in topics:
        try:
            found[topic] = shape_of(topic, heard[topic])
        except ValueError as e:
            left_out[topic] = str(e)
    many = {_start(topic) for topic, each in found.items() if each.shape.many}
    return {t: each.several if each.several and _start(t) in many else each for t, each in found.items()}


def _start(topic: str) -> tuple[int, str]:
    """How deep a topic is, and what it begins with."""
    levels = topic.split("/")
    return len(levels), levels[0] if len(levels) > 1 else ""


def groups(shaped: dict[str, Shaped], reads: Callable[[str, Shape], bool]) -> list[Group]:
    """Topics by template and shape: native ones first, the others by their depth and what they begin with.

    Args:
        shaped: of each topic.
        reads: whether a topic's payloads can be read by another shape.
    """
    native: dict[Shape, Group] = {}
    others: dict[_Key, list[str]] = {}
    for topic, each in shaped.items():
        if _NATIVE.match(topic) and not each.shape.many:
            native.setdefault(each.shape, Group(NATIVE, each.shape, "", [])).topics.append(topic)
        else:
            others.setdefault((*_start(topic), each.shape), []).append(topic)
    found = list(native.values())
    for (_, _, shape), topics in _joined(others, reads).items():
        text, machine = (_template_of_many if shape.many else _template)(topics)
        found.append(Group(text, shape, machine, topics))
    return found


def _joined(given: dict[_Key, list[str]], reads: Callable[[str, Shape], bool]) -> dict[_Key, list[str]]:
    """Groups that differ only in having a time or a status at all, made one where all can be read so."""
    joined: dict[_Key, list[str]] = {}
    for (depth, first, shape), topics in sorted(given.items(), key=lambda item: not item[0][2].time):
        for (other_depth, other_first, other), known in joined.items():
            mine = (depth, first, shape.value, shape.many, shape.text)
            same = mine == (other_depth, other_first, other.value, other.many, other.text)
            if same and all(reads(topic, other) for topic in topics):
                known.extend(topics)
                break
        else:
            joined[depth, first, shape] = list(topics)
    return joined


def _literal(level: str) -> str:
    """A level of a template that stands for itself."""
    return "+" if set("{}") & set(level) else level


def _template(topics: Sequence[str]) -> tuple[str, str]:
    """(template, machine where the topic names none): the last level is the signal, the one before it the machine.

    Levels before them that differ are line, area and site; what is left over is any.
    """
    if "/" not in topics[0]:
        return "{signal}", "broker"
    return _above([topic.split("/") for topic in topics], ["{signal}", "{machine}"]), ""


def _template_of_many(topics: Sequence[str]) -> tuple[str, str]:
    """As `_template`, for payloads that name the signals: the machine is a level that differs, as low as can be."""
    split = [topic.split("/") for topic in topics]
    depth = len(split[0])
    if depth <= 2:
        return _above(split, ["{machine}"]), ""
    last, before = ({levels[i] for levels in split} for i in (-1, -2))
    if len(last) == 1:
        return _above(split, [_literal(split[0][-1]), "{machine}"]), ""
    return _above(split, ["{machine}"] if len(before) == 1 else ["{signal}", "{machine}"]), ""


def _above(split: list[list[str]], out: list[str]) -> str:
    """The template with `out`, its last levels in reverse, and what stands above them."""
    names = iter(_PLACES)
    out = list(out)
    for i in range(len(split[0]) - len(out) - 1, -1, -1):
        same = len({levels[i] for levels in split}) == 1
        out.append(_literal(split[0][i]) if same else f"{{{name}}}" if (name := next(names, "")) else "+")
    return "/".join(reversed(out))


def source_of(group: Group, shaped: dict[str, Shaped], others: Sequence[str]) -> Planned:
    """The `[[source]]` of a group.

    Args:
        group: what it reads.
        shaped: of each topic.
        others: topics that it must not read.
    """
    keys: dict[str, Any] = {
        "format": PLAIN if group.shape.text else JSON,
        "topics": filters_for(group, others),
        "topic": group.template,
    }
    if group.machine:
        keys["machine"] = group.machine
    if group.shape.text:
        return Planned(keys, group.topics, "named by its topics")
    if group.shape.many:
        keys["values"] = values_for(group, shaped)
    else:
        keys["value"] = group.shape.value
    keys |= {"time": group.shape.time, "status": group.shape.status}
    return Planned(keys, group.topics, "named by its topics")


def values_for(group: Group, shaped: dict[str, Shaped]) -> dict[str, str]:
    """Name → path of every leaf of a group; with too many, wildcards for as deep as they are."""
    paths = list(dict.fromkeys(path for topic in group.topics for path in shaped[topic].paths))
    if len(paths) <= _FIELDS:
        return names_of(paths)
    deepest = max(path.count(".") for path in paths) + 1
    return {".".join("*" * depth): ".".join("*" * depth) for depth in range(1, deepest + 1)}


def filters_for(group: Group, others: Sequence[str]) -> list[str]:
    """Filters that take the topics of a group and none of `others`, as few as can be found.

    Topics that the template does not take do no harm.
    """
    template = TopicTemplate(group.template)
    harmful = [t for t in others if takes(template, t)]
    whole = [template.filter]
    if not any(matches(whole[0], topic) for topic in harmful):
        return whole
    free = [i for i, level in enumerate(template.filter.split("/")) if level == "+"]
    for fixed in free:
        some = sorted({_fixed(template.filter, fixed, topic) for topic in group.topics})
        if len(some) <= _EXACT // 10 and not any(matches(each, topic) for each in some for topic in harmful):
            return some
    return sorted(group.topics) if len(group.topics) <= _EXACT else whole


def takes(template: TopicTemplate, topic: str) -> bool:
    """Whether a source with this template would read a topic: names that start with `_` it does not."""
    found = template.match(topic)
    return found is not None and not any(level.startswith("_") for level in found.values())


def _fixed(text: str, at: int, topic: str) -> str:
    """A filter with one of its levels as `topic` has it."""
    levels = text.split("/")
    levels[at] = topic.split("/")[at]
    return "/".join(levels)
