"""Where a thing is: the ISA-95 path of a machine, and the name of a signal on it."""

from typing import Self

import msgspec

_FORBIDDEN = frozenset("/+#$\x00")


def check_name(name: str, what: str) -> str:
    """Return `name` if it can be one level of a path.

    Raises:
        ValueError: if it is empty, over 200 characters, or holds `/ + # $` or a control character.
    """
    if not name or len(name) > 200:
        raise ValueError(f"{what} {name[:40]!r} must have 1 to 200 characters")
    if not _FORBIDDEN.isdisjoint(name) or not name.isprintable():
        raise ValueError(f"{what} {name[:40]!r} may not hold / + # $ or control characters")
    return name


class Place(msgspec.Struct, frozen=True, order=True):
    """A machine, by its ISA-95 path `site/area/line/machine`."""

    site: str
    area: str
    line: str
    machine: str

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read `site/area/line/machine`.

        Raises:
            ValueError: if there are not four levels, or a level is not a valid name.
        """
        levels = path.split("/")
        if len(levels) != 4:
            raise ValueError(f"place {path!r} must be site/area/line/machine")
        return cls(*(check_name(level, "place level") for level in levels))

    @property
    def path(self) -> str:
        """`site/area/line/machine`."""
        return f"{self.site}/{self.area}/{self.line}/{self.machine}"


class SignalKey(msgspec.Struct, frozen=True, order=True):
    """What identifies a series: one named signal of one machine."""

    place: Place
    name: str

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read `site/area/line/machine/signal`.

        Raises:
            ValueError: if there are not five levels, or a level is not a valid name.
        """
        place, _, name = path.rpartition("/")
        return cls(Place.parse(place), check_name(name, "signal"))

    @property
    def path(self) -> str:
        """`site/area/line/machine/signal`."""
        return f"{self.place.path}/{self.name}"

    @property
    def short(self) -> str:
        """`machine/signal`, as the configuration names it."""
        return f"{self.place.machine}/{self.name}"
