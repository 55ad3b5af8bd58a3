"""Which dialect a topic speaks: its path says what it may be, its payloads say what it is."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.sparkplug.naming import NAMESPACE, parse
from fieldlab.sparkplug.payload import decode

_LONGEST: Final = 1_000  # characters of a device's topic
JSON: Final = "json"
PLAIN: Final = "plain"
SPARKPLUG: Final = "sparkplug"
_NAMESPACE: Final = f"{NAMESPACE}/"
# The prefix is what stands above a device's own topics; the sources of the paths are in each format's dialect.
_PATHS: Final = {
    "bambu": re.compile(r"(device/[^/]+)/(report)", re.DOTALL),
    "moonraker": re.compile(r"(.+)/(klipper/status|klipper/state/[^/]+/[^/]+|moonraker/status)", re.DOTALL),
    "octoprint": re.compile(r"(.+)/(event/[^/]+|progress/printing|temperature/[^/]+|mqtt)", re.DOTALL),
    "vda5050": re.compile(r"(.*/[^/]+)/(state|visualization|connection|factsheet)", re.DOTALL),
}
_BESIDE: Final = {  # what else stands below such a prefix: never read as something else
    "bambu": ("",),
    "moonraker": ("klipper/", "moonraker/"),
    "octoprint": ("event/", "progress/", "temperature/", "hass/", "gcode/", "plugin/"),
    "vda5050": ("order", "instantActions", "responses", "zoneSet"),
}


class Claim(msgspec.Struct):
    """The topics of one device of a format, by the prefix above them; one for all of Sparkplug, with no prefix."""

    format: str
    prefix: str
    topics: list[str] = []


def kin_of(topic: str) -> str:
    """The format that a topic looks like, by its path alone."""
    if topic.startswith(_NAMESPACE):
        return SPARKPLUG
    if len(topic) > _LONGEST:
        return JSON
    return next((name for name, path in _PATHS.items() if path.fullmatch(topic)), JSON)


def claims(topics: dict[str, list[bytes]]) -> tuple[list[Claim], dict[str, str]]:
    """Who speaks a dialect.

    Args:
        topics: topic → payloads.

    Returns:
        The claims; and topics that belong to such a device, or to the protocol, and are not read, with the reason.
    """
    sure = {
        (name, match[1])
        for topic, payloads in topics.items()
        for name, match in _candidates(topic)
        if any(_SHOWS[name](match[2], match[1], payload) for payload in payloads)
    }
    found: dict[tuple[str, str], Claim] = {}
    left_out: dict[str, str] = {}
    for topic, payloads in topics.items():
        if topic.startswith((_NAMESPACE, "STATE/")):
            if reason := _sparkplug(topic, payloads):
                if not topic.startswith("STATE/") or reason == _STATE:
                    left_out[topic] = reason
            else:
                found.setdefault((SPARKPLUG, ""), Claim(SPARKPLUG, "", [])).topics.append(topic)
            continue
        claimed = next(((name, m[1]) for name, m in _candidates(topic) if (name, m[1]) in sure), None)
        if claimed is not None:
            found.setdefault(claimed, Claim(*claimed, [])).topics.append(topic)
        elif beside := _beside(topic, sure):
            left_out[topic] = f'the format "{beside}" has no readings there'
    return list(found.values()), left_out


def _candidates(topic: str) -> Iterable[tuple[str, "re.Match[str]"]]:
    return [(name, match) for name, path in _PATHS.items() if (match := path.fullmatch(topic))]


def _beside(topic: str, sure: set[tuple[str, str]]) -> str:
    """The format of the device that a topic stands below; empty if there is none."""
    levels = topic.split("/")
    for depth in range(1, len(levels)):
        prefix, rest = "/".join(levels[:depth]), "/".join(levels[depth:])
        for name, beside in _BESIDE.items():
            if (name, prefix) in sure and rest.startswith(beside):
                return name
    return ""


_STATE: Final = "a host application's STATE is no reading"


def _sparkplug(topic: str, payloads: list[bytes]) -> str:
    """Why a topic of Sparkplug's is not read; empty if it is."""
    if topic.startswith(("STATE/", f"{_NAMESPACE}STATE/")):
        words = (b"ONLINE", b"OFFLINE")
        return _STATE if topic[0] != "S" or any(each in words for each in payloads) else "no STATE"
    try:
        parse(topic.encode())
    except (Ignored, ValueError) as e:
        return "a command to an edge node is no reading" if str(e) == "ignored" else f"not Sparkplug B: {e}"
    why = "no payload was kept"
    for payload in payloads:
        try:
            decode(payload)
        except ValueError as e:
            why = str(e)
        else:
            return ""
    return why


def _object(payload: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _shows_octoprint(path: str, prefix: str, payload: bytes) -> bool:
    if path == "mqtt":
        return prefix.lower() == "octoprint" and payload in (b"connected", b"disconnected")
    document = _object(payload)
    own = {"temperature": "actual", "progress": "progress", "event": "_event"}[path.partition("/")[0]]
    return own in document and ("_timestamp" in document or own == "_event")


def _shows_moonraker(path: str, _prefix: str, payload: bytes) -> bool:
    document = _object(payload)
    if path == "moonraker/status":
        return document.get("server") in ("online", "offline")
    key = "status" if path == "klipper/status" else "value"
    return "eventtime" in document and key in document and (key == "value" or isinstance(document[key], dict))


def _shows_bambu(_path: str, _prefix: str, payload: bytes) -> bool:
    return isinstance(_object(payload).get("print"), dict)


def _shows_vda5050(_path: str, _prefix: str, payload: bytes) -> bool:
    return {"headerId", "timestamp", "manufacturer", "serialNumber"} <= _object(payload).keys()


_SHOWS: Final[dict[str, Callable[[str, str, bytes], bool]]] = {
    "bambu": _shows_bambu,
    "moonraker": _shows_moonraker,
    "octoprint": _shows_octoprint,
    "vda5050": _shows_vda5050,
}
