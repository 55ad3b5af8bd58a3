"""What stands in a JSON payload: leaves by dotted path; which are time, status, unit or metadata; and names."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

VALUES: Final = ("value", "val", "v", "Value", "VALUE", "reading", "data.value", "payload.value")
TIMES: Final = ("ts", "timestamp", "time", "t", "Timestamp", "Time", "datetime", "data.ts", "payload.ts")
STATUSES: Final = ("status", "quality", "Status")
_UNITS: Final = frozenset(("unit", "units", "uom", "engunit", "unitofmeasurement", "unit_of_measurement"))
_META: Final = re.compile(
    r"(seq(uence)?(_?(nr|no|id|number))?|id|nr|index|qos|version|msg_?id|message_?id)", re.IGNORECASE
)
_DEPTH: Final = 8
_MOST: Final = 2_000  # leaves of a payload
_LONGEST_ARRAY: Final = 1_000
_SCALARS: Final = (int, float, str, type(None))
Leaves = dict[str, Any]


def leaves_of(document: Any) -> Leaves:
    """Dotted path → scalar or array of scalars; not what no path leads to: keys with a dot, arrays of objects."""
    found: Leaves = {}
    todo: list[tuple[str, Any, int]] = [("", document, 0)]
    while todo and len(found) < _MOST:
        path, at, depth = todo.pop()
        if isinstance(at, dict):
            if depth < _DEPTH:
                below = [
                    (f"{path}.{key}" if path else key, each, depth + 1) for key, each in at.items() if _is_key(key)
                ]
                todo += reversed(below)
        elif path and (isinstance(at, _SCALARS) or _is_array(at)):
            found[path] = at
    return found


def _is_key(key: Any) -> bool:
    return isinstance(key, str) and bool(key) and "." not in key and key != "*"


def _is_array(at: Any) -> bool:
    return isinstance(at, list) and 0 < len(at) <= _LONGEST_ARRAY and all(isinstance(each, _SCALARS) for each in at)


def is_number(raw: Any) -> bool:
    """Whether it is a number, and no boolean."""
    return isinstance(raw, int | float) and not isinstance(raw, bool)


def is_meta(path: str) -> bool:
    """Whether a leaf counts or names messages, by its name."""
    return _META.fullmatch(path.rpartition(".")[2]) is not None


def unit_paths(leaves: Leaves) -> dict[str, str]:
    """Path of a leaf that is a unit → the unit."""
    return {
        path: leaf
        for path, leaf in leaves.items()
        if isinstance(leaf, str) and len(leaf) <= 20 and path.rpartition(".")[2].lower() in _UNITS
    }


def unit_of(path: str, leaves: Leaves) -> str:
    """The unit that stands beside a leaf, if the leaf is the only number there; else empty."""
    parent = path.rpartition(".")[0]
    beside = [each for each in leaves if each.rpartition(".")[0] == parent]
    values = [p for p in beside if p not in TIMES and p not in STATUSES and not is_meta(p) and is_number(leaves[p])]
    units = [unit for each, unit in unit_paths(leaves).items() if each in beside]
    return units[0] if len(units) == 1 and values in ([path], []) else ""


def names_of(paths: Iterable[str]) -> dict[str, str]:
    """Name of a signal → path; a value has its parent's name where that is free. Paths without a name are left out."""
    paths = list(paths)
    found: dict[str, str] = {}
    taken = set(paths)
    for path in paths:
        parent, _, last = path.rpartition(".")
        wanted = parent if parent and last in VALUES and parent not in taken else path
        name = "".join(c if c.isprintable() and c not in "/+#$*" else "_" for c in wanted)
        if name.startswith("_") or not 1 <= len(name) <= 190:
            continue
        while name in found:
            name += "_2"
        taken.add(name)
        found[name] = path
    return found


def alone(paths: Sequence[str]) -> str:
    """The only one of `paths`, or empty."""
    return paths[0] if len(paths) == 1 else ""
