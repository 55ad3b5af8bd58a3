"""Which objects of a server are machines: by companion specifications, else by structure."""

from typing import Final

import msgspec

from edge.sources.opcua.discover_space import OBJECTS, Node, Space, key_of

_FOUNDATION: Final = "http://opcfoundation.org/UA/"
MACHINERY: Final = _FOUNDATION + "Machinery/"
DI: Final = _FOUNDATION + "DI/"
# Namespace, types of whole machines, name of the specification. The first that fits names it.
_SPECIFICATIONS: Final = (
    (_FOUNDATION + "MachineTool/", ("MachineToolType",), "Machine Tools, OPC 40501-1"),
    (_FOUNDATION + "Robotics/", ("MotionDeviceSystemType",), "Robotics, OPC 40010-1"),
    (_FOUNDATION + "PackML/", ("PackMLBaseObjectType",), "PackML, OPC 30050"),
)
_FOLDER: Final = "i=61"
# Entry points of Devices, OPC 10000-100, and Machinery: they hold machines and are none.
_GATHERING: Final = frozenset({"DeviceSet", "NetworkSet", "DeviceTopology", "DeviceFeatures", "Machines"})


class MachineFound(msgspec.Struct, frozen=True):
    """An object that is a machine: its key, and how it was recognised."""

    key: str
    why: str


def find_machines(space: Space) -> list[MachineFound]:
    """The machines, none within another, in the server's order.

    Companion specifications first; then, in what is left, each topmost object that is no folder and has variables
    below it, or that has variables itself.
    """
    known = {key: why for key in space.nodes if (why := _specification(space, key))}
    for node in space.nodes.values():
        if (node.namespace, node.name) == (MACHINERY, "Machines"):
            for child in node.children:
                if not space.nodes[child].variable:
                    known.setdefault(child, "in Machines of Machinery, OPC 40001-1")
    found: dict[str, MachineFound] = {}
    inside: set[str] = set()
    for key, why in known.items():
        if key not in inside:
            found[key] = MachineFound(key, why)
            inside |= {path[-1] for path in space.below(key)}
    found = {key: machine for key, machine in found.items() if key not in inside}
    inside |= set(found)
    holding = _above(space, [key for key, node in space.nodes.items() if node.variable and not node.property])
    gathering = _above(space, list(found))
    for key in _by_structure(space, holding, gathering, inside):
        found[key] = MachineFound(key, "by structure: an object with variables")
    order = {key: i for i, key in enumerate(space.nodes)}
    return sorted(found.values(), key=lambda machine: order[machine.key])


def _specification(space: Space, key: str) -> str:
    """The companion specification that a machine is of; empty if none."""
    if space.nodes[key].variable:
        return ""
    for namespace, types, name in _SPECIFICATIONS:
        if space.is_a(key, namespace, *types):
            return name
    return ""


def _above(space: Space, keys: list[str]) -> set[str]:
    """Every node that holds one of `keys`, at any depth."""
    parents: dict[str, list[str]] = {}
    for key, node in space.nodes.items():
        for child in node.children:
            parents.setdefault(child, []).append(key)
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        for parent in parents.get(waiting.pop(), ()):
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def _by_structure(space: Space, holding: set[str], gathering: set[str], taken: set[str]) -> list[str]:
    """Topmost objects with variables. One that holds a machine is opened, unless it has variables itself."""
    start = key_of(OBJECTS)
    found: list[str] = []
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        key = waiting.pop(0)
        node = space.nodes[key]
        if key in seen or key in taken or node.variable or key not in holding:
            continue
        seen.add(key)
        if key == start or _gathers(space, node, opened=key in gathering):
            waiting += node.children
        else:
            found.append(key)
    return found


def _gathers(space: Space, node: Node, *, opened: bool) -> bool:
    """Whether an object only holds machines: an entry point, or a folder without variables of its own."""
    if node.namespace in (DI, MACHINERY) and node.name in _GATHERING:
        return True
    children = [space.nodes[child] for child in node.children]
    has_variables = any(child.variable and not child.property for child in children)
    return (node.type == _FOLDER or opened) and not has_variables
