"""Readers of machines, one folder a kind, or a package of somebody else. A kind that is not configured is not imported.

A package adds kinds by entry points of the group `fieldlab.sources`: a kind's name, and the object that is a
`SourceKind`. `edge.sources.contract` is the suite of tests that it should pass.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from edge.sources.base import SourceKind
from fieldlab.errors import RefusedError

GROUP = "fieldlab.sources"

_MODULES = {"opcua": "edge.sources.opcua", "mqtt": "edge.sources.mqtt", "replay": "edge.sources.replay"}


def known_kinds() -> list[str]:
    """The names that `[[source]] kind` may have; those of plug-ins included."""
    return sorted({*_MODULES, *_plugins()})


def load_kind(kind: str) -> SourceKind:
    """The kind called `kind`, imported now. A plug-in cannot take the place of a kind of ours.

    Raises:
        KeyError: if there is no such kind.
        ModuleNotFoundError: if something that it needs is not installed.
        RefusedError: if two packages offer it, or what the package offers is no `SourceKind`.
    """
    found: SourceKind
    if kind in _MODULES:
        found = import_module(_MODULES[kind]).KIND
        return found
    offered = _plugins()[kind]
    if len(offered) > 1:
        packages = ", ".join(sorted(_package(each) for each in offered))
        raise RefusedError(f"the source kind {kind!r} is offered by {packages}: uninstall all but one")
    try:
        found = offered[0].load()
    except ModuleNotFoundError:
        raise
    except Exception as e:
        raise RefusedError(f"the source kind {kind!r} of the package {_package(offered[0])} breaks: {e!r}") from e
    missing = [name for name in ("config", "create", "check") if not hasattr(found, name)]
    if missing:
        what = f"{_package(offered[0])}: {offered[0].value} is no source kind: it has no {', '.join(missing)}"
        raise RefusedError(what)
    return found


@cache
def _plugins() -> dict[str, tuple[EntryPoint, ...]]:
    """What installed packages offer, by kind."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for each in entry_points(group=GROUP):
        if each.name not in _MODULES and each not in found.get(each.name, ()):
            found[each.name] = (*found.get(each.name, ()), each)
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
