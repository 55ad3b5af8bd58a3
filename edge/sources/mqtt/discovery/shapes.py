"""Where value, time and status stand in the payloads of a topic that speaks no dialect."""

import time
from functools import lru_cache
from typing import Any, Final

import msgspec

from edge.sources.mqtt.discovery.heard import Heard
from edge.sources.mqtt.discovery.leaves import (
    STATUSES,
    TIMES,
    VALUES,
    Leaves,
    alone,
    is_meta,
    is_number,
    leaves_of,
    unit_of,
    unit_paths,
)
from edge.sources.mqtt.payload import JsonPayload, PayloadError, decode, time_and_status
from edge.sources.mqtt.plain import PlainPayload
from edge.sources.mqtt.rows import Rows
from fieldlab.model.place import check_name

_TEXT: Final = 200  # bytes of a text that may be a value; what is longer is for people
_DAY: Final = 86_400_000_000_000


class Shape(msgspec.Struct, frozen=True):
    """Keys of a `[[source]]`.

    `many`: the payload names several signals, and `value` is empty; `text`: it is no JSON, and format `plain` reads it.
    """

    value: str
    time: str
    status: str
    many: bool = False
    text: bool = False


class Shaped(msgspec.Struct):
    """A topic whose payloads can be read.

    Attributes:
        shape: where things stand.
        paths: leaves that are signals, if there are several.
        units: path of a leaf → its unit.
        several: the same payloads as several values, where the one value has a name of its own.
    """

    shape: Shape
    paths: list[str] = []
    units: dict[str, str] = {}
    several: "Shaped | None" = None


def shape_of(topic: str, heard: Heard) -> Shaped:
    """Where things stand in the payloads of a topic.

    Raises:
        ValueError: with the reason why it cannot be read.
    """
    levels = topic.split("/")
    if any(level.startswith("_") for level in levels):
        raise ValueError("names that start with _ are never read")
    for level in levels:
        check_name(level, "topic level")
    payloads = [each.payload for each in heard.kept if each.payload]
    if not payloads:
        raise ValueError("no payload that is small enough was heard" if heard.large else "the payloads are empty")
    documents = [decoded for each in payloads if (decoded := _decoded(each)) is not None]
    text = Shape("", "", "", text=True)
    if len(documents) < len(payloads) and all(len(each) <= _TEXT and reads(text, each) for each in payloads):
        return Shaped(text)
    if not documents:
        raise ValueError("the payload is neither JSON, a number nor short text")
    newest = documents[-1]
    leaves: Leaves = {path: leaf for each in documents for path, leaf in leaves_of(each).items()}
    if not isinstance(newest, dict):
        plain = Shape("", "", "")
        if reads(plain, payloads[-1]):
            return Shaped(plain)
        if isinstance(newest, list) and newest and leaves_of({"x": newest}):
            raise ValueError("an array alone: nothing says when each value was; write `values` by hand")
        raise ValueError("the payload holds no number, boolean or text")
    several = _several(documents, leaves)
    single = _single(payloads, leaves)
    named = single is not None and single.value not in VALUES
    others = [p for p in several.paths if not is_meta(p) and (named or is_number(leaves[p]))]
    if single is not None and (len(others) <= 1 or levels[0] == "fieldlab"):
        unit = unit_of(single.value, leaves)
        return Shaped(single, units={single.value: unit} if unit else {}, several=several if named else None)
    if several.paths:
        return several
    raise ValueError("the payload holds no number, boolean or text, and no array of them with times")


def _decoded(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _single(payloads: list[bytes], leaves: Leaves) -> Shape | None:
    """The shape of one value; of those that can be read, the one that most payloads have."""
    times = [path for path in TIMES if path in leaves]
    statuses = [path for path in STATUSES if path in leaves]
    numbers = [p for p, leaf in leaves.items() if is_number(leaf) and p not in times and p not in statuses]
    only = alone([p for p in numbers if not is_meta(p)])
    values: list[str] = [path for path in VALUES if path in leaves] or ([only] if only else [])
    native = [Shape("value", "ts", "status")] if "value" in values else []
    candidates = native + [Shape(v, t, s) for v in values for s in [*statuses, ""] for t in [*times, ""]]
    best, most = None, 0
    for shape in dict.fromkeys(candidates):
        if times and shape.time and shape.time not in times:
            continue
        count = sum(reads(shape, each) for each in payloads)
        if count > most:
            best, most = shape, count
    return best


@lru_cache(maxsize=1000)
def _reader(shape: Shape) -> JsonPayload:
    return PlainPayload() if shape.text else JsonPayload(shape.value, shape.time, shape.status)


def reads(shape: Shape, payload: bytes) -> bool:
    """Whether the source would read `payload`."""
    now = time.time_ns()
    try:
        if shape.many:
            return time_and_status(decode(payload), shape.time, shape.status, now, retained=False)[0] <= now + _DAY
        return _reader(shape).read(payload, 0, now, Rows()) > 0
    except PayloadError:
        return False


def _several(documents: list[Any], leaves: Leaves) -> Shaped:
    """The shape of several values: every leaf but time, status and units."""
    objects = [each for each in documents if isinstance(each, dict)]
    at = next((p for p in TIMES if p in leaves and _all_read(objects, p, "")), "")
    status = next((p for p in STATUSES if p in leaves and _all_read(objects, "", p)), "")
    units = unit_paths(leaves)
    paths = [p for p, leaf in leaves.items() if p not in (at, status) and p not in units and leaf is not None]
    paths = [p for p in paths if not (p in TIMES and isinstance(leaves[p], str))]  # a time that we cannot read
    told = {p: unit for p in paths if (unit := unit_of(p, leaves))}
    return Shaped(Shape("", at, status, many=True), paths, told)


def _all_read(documents: list[Any], at: str, status: str) -> bool:
    now = time.time_ns()
    try:
        return all(time_and_status(each, at, status, now, retained=False)[0] <= now + _DAY for each in documents)
    except PayloadError:
        return False
