"""Sources for devices that speak a dialect: which `topic` takes them all, and tells them apart."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from edge.proposal import clean_name, unique_names
from edge.sources.base import SourceContext
from edge.sources.mqtt.discovery.recognise import SPARKPLUG, Claim
from edge.sources.mqtt.sparkplug.naming import DEFAULT_TOPIC, NAMESPACE, Places, parse
from edge.sources.mqtt.topics import TopicTemplate
from fieldlab.model.place import check_name

_LEVELS: Final = ("line", "area", "site")
_SPARKPLUG_TOPICS: Final = (
    DEFAULT_TOPIC,
    f"{NAMESPACE}/{{line}}/+/+/{{machine}}",
    f"{NAMESPACE}/+/+/{{line}}/{{machine}}",
    f"{NAMESPACE}/{{area}}/+/{{line}}/{{machine}}",
)
PARTS: Final[dict[str, dict[str, Any]]] = {  # of each machine of a format
    "octoprint": {"job": "job", "longest": "48h"},
    "moonraker": {"job": "job", "longest": "48h"},
    "bambu": {"job": "job", "longest": "48h"},
    "vda5050": {"id": "order", "longest": "2h"},
}


class Planned(msgspec.Struct):
    """A source that is to be printed.

    Attributes:
        keys: of its `[[source]]`, but for those that every source of this broker has.
        topics: what it is to read.
        why: how its machines were recognised.
    """

    keys: dict[str, Any]
    topics: list[str]
    why: str


def plan(claims: Iterable[Claim], context: SourceContext, left_out: dict[str, str]) -> list[Planned]:
    """The sources of all claims; a device that cannot have a name goes to `left_out`."""
    found: list[Planned] = []
    taken: set[str] = set()
    by_format: dict[str, list[Claim]] = {}
    for claim in claims:
        by_format.setdefault(claim.format, []).append(claim)
    for name, some in by_format.items():
        if name == SPARKPLUG:
            found += _sparkplug(some[0], context, left_out, taken)
        else:
            found += _devices(name, some, left_out, taken)
    return found


def _sparkplug(claim: Claim, context: SourceContext, left_out: dict[str, str], taken: set[str]) -> list[Planned]:
    """One source: a host application must see every message. The first template that mixes no two machines."""
    branches = [parse(topic.encode()) for topic in claim.topics]
    best: tuple[int, str, set[str]] | None = None
    for template in _SPARKPLUG_TOPICS:
        places = Places(template, {"site": context.site, "area": context.area, "line": context.line, "machine": ""})
        mixed, names = 0, set[str]()
        for each in branches:
            try:
                names.add(places.of(each.group, each.node, each.device).machine)
            except ValueError:
                mixed += 1
        if best is None or mixed < best[0]:
            best = (mixed, template, names)
    if best is None or not best[2]:
        left_out.update(dict.fromkeys(claim.topics, "its names cannot be those of machines"))
        return []
    taken |= best[2]
    keys = {"format": SPARKPLUG} | ({} if best[1] == DEFAULT_TOPIC else {"topic": best[1]})
    return [Planned(keys, claim.topics, "Sparkplug B")]


def _devices(name: str, claims: list[Claim], left_out: dict[str, str], taken: set[str]) -> list[Planned]:
    """One source for all devices whose prefixes differ in a level or two, else one each."""
    usable = []
    for claim in claims:
        if any(level.startswith("_") for level in claim.prefix.split("/")):
            left_out.update(dict.fromkeys(claim.topics, "names that start with _ are never read"))
        elif claim.prefix.endswith("/"):
            left_out.update(dict.fromkeys(claim.topics, "`topic` cannot end with an empty level"))
        else:
            usable.append(claim)
    found: list[Planned] = []
    groups: dict[tuple[Any, ...], list[Claim]] = {}
    for claim in usable:
        levels = claim.prefix.split("/")
        groups.setdefault((len(levels), *(levels[:-2] if name == "vda5050" else ())), []).append(claim)
    for some in groups.values():
        joint = _joint(name, [claim.prefix for claim in some], taken)
        if joint is not None and any(_takes(joint[0], claim.prefix) for claim in claims if claim not in some):
            joint = None
        if joint is not None:
            template, machines = joint
            taken |= machines
            keys: dict[str, Any] = {"format": name, "topic": template}
            found.append(Planned(_own(keys), [topic for claim in some for topic in claim.topics], _why(name)))
            continue
        for claim in some:
            if set("{}") & set(claim.prefix):
                left_out.update(dict.fromkeys(claim.topics, "`topic` cannot be written for a topic with braces"))
                continue
            machine = unique_names([*sorted(taken), clean_name(claim.prefix.rpartition("/")[2])])[-1]
            taken.add(machine)
            keys = {"format": name, "topic": claim.prefix, "machine": machine}
            found.append(Planned(_own(keys), claim.topics, _why(name)))
    return found


def _joint(name: str, prefixes: list[str], taken: set[str]) -> tuple[str, set[str]] | None:
    """A template that takes all prefixes and gives each a machine of its own, and the machines; None if there is none.

    The machine is the last level that differs, or the last.
    """
    split = [prefix.split("/") for prefix in prefixes]
    depth = len(split[0])
    differ = [i for i in range(depth) if len({levels[i] for levels in split}) > 1]
    if name == "octoprint" and not differ:
        return None  # its base topic is no name
    at = differ[-1] if differ else depth - 1
    machines = {levels[at] for levels in split}
    if machines & taken or not all(_is_name(each) for each in machines):
        return None
    alone = len(machines) == len(prefixes)
    names = iter(_LEVELS)
    out = []
    for i in range(depth - 1, -1, -1):
        level = split[0][i]
        if i == at:
            out.append("{machine}")
        elif i not in differ and not (name == "vda5050" and i == depth - 2):
            out.append(level if not set("{}") & set(level) else "+")
        elif alone:
            out.append("+")
        elif (place := next(names, "")) and all(_is_name(levels[i]) for levels in split):
            out.append(f"{{{place}}}")
        else:
            return None
    return "/".join(reversed(out)), machines


def _takes(template: str, prefix: str) -> bool:
    """Whether a source with this `topic` would read a device that it is not for."""
    found = TopicTemplate(template).match(prefix)
    return found is not None and not any(level.startswith("_") for level in found.values())


def _is_name(level: str) -> bool:
    try:
        check_name(level, "machine")
    except ValueError:
        return False
    return True


def _own(keys: dict[str, Any]) -> dict[str, Any]:
    """What a format wants beside: a Bambu printer is its own broker, and keeps nothing."""
    return {**keys, "session": "clean"} if keys["format"] == "bambu" else keys


_NAMES: Final = {"octoprint": "OctoPrint", "moonraker": "Klipper", "bambu": "Bambu Lab", "vda5050": "VDA 5050"}


def _why(name: str) -> str:
    return f"speaks {_NAMES[name]}"
