"""Sparkplug's topics and metric names → machines and signals."""

import msgspec

from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.topics import TopicTemplate
from fieldlab.model import Place
from fieldlab.model.place import check_name

NAMESPACE = "spBv1.0"
DEFAULT_TOPIC = f"{NAMESPACE}/+/+/+/{{machine}}"
KINDS = frozenset(("NBIRTH", "NDEATH", "NDATA", "DBIRTH", "DDEATH", "DDATA"))
_REPLACED = {ord("/"): ".", ord("+"): "_", ord("#"): "_", ord("$"): "_"}
_MACHINES_MAX = 100_000
_CONTROL = ("Node Control/", "Device Control/")


class Topic(msgspec.Struct, frozen=True):
    """A topic in its parts; `device` is empty for a message of the edge node itself."""

    group: str
    kind: str
    node: str
    device: str


def parse(topic: bytes) -> Topic:
    """Read `spBv1.0/GROUP/KIND/NODE[/DEVICE]`.

    Raises:
        Ignored: if it is another topic, or a command.
        ValueError: if it is not UTF-8, or has the wrong number of levels.
    """
    levels = topic.decode().split("/")
    if levels[0] != NAMESPACE or len(levels) < 3:
        raise Ignored("unmatched")
    kind = levels[2]
    if levels[1] == "STATE" or kind in ("NCMD", "DCMD"):
        raise Ignored("ignored")
    if kind not in KINDS:
        raise Ignored("unmatched")
    if len(levels) != (4 if kind[0] == "N" else 5) or not all(levels):
        raise ValueError(f"a {kind} has {len(levels)} levels in its topic")
    return Topic(levels[1], kind, levels[3], levels[4] if len(levels) == 5 else "")


class Places:
    """The machine of each edge node and device.

    A template is matched against `spBv1.0/GROUP/KIND/NODE/DEVICE`, where a message of the edge node itself has the
    node's name for DEVICE.

    Args:
        template: the template.
        defaults: what it does not name: site, area, line, machine.
    """

    def __init__(self, template: str, defaults: dict[str, str]) -> None:
        self._template = TopicTemplate(template)
        self._defaults = defaults
        self._owners: dict[Place, tuple[str, str, str]] = {}

    def of(self, group: str, node: str, device: str) -> Place:
        """The machine.

        Raises:
            Ignored: if the template does not take it.
            ValueError: if a name cannot be a level of a path, the machine belongs to another node or device, or there
                are too many.
        """
        kind = "DDATA" if device else "NDATA"
        found = self._template.match(f"{NAMESPACE}/{group}/{kind}/{node}/{device or node}")
        if found is None:
            raise Ignored("unmatched")
        place = Place(**{level: check_name(name, level) for level, name in {**self._defaults, **found}.items()})
        if len(self._owners) >= _MACHINES_MAX and place not in self._owners:
            raise ValueError(f"more than {_MACHINES_MAX} machines")
        owner = self._owners.setdefault(place, (group, node, device))
        if owner != (group, node, device):
            who = "/".join(filter(None, owner))
            raise ValueError(
                f"machine {place.path} is {who} already; write a `topic` that tells them apart, such as "
                f"{NAMESPACE}/{{area}}/+/{{line}}/{{machine}}"
            )
        return place


def signal_name(metric: str) -> str:
    """The name of a metric's signal: `/` becomes `.`, and `+ # $` and what cannot be printed `_`.

    Empty for what is no signal: a name that starts with `_`, is empty or too long.
    """
    name = metric.translate(_REPLACED)
    if not name.isprintable():
        name = "".join(each if each.isprintable() else "_" for each in name)
    return "" if not name or name[0] == "_" or len(name) > 200 else name


def is_control(metric: str) -> bool:
    """Whether a metric belongs to the protocol and not to the machine."""
    return metric == "bdSeq" or metric.startswith(_CONTROL)
