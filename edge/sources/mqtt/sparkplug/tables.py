"""What a birth certificate says: metrics by name and by alias, and their types."""

from collections.abc import Iterable
from typing import Self

import msgspec

from edge.sources.mqtt.sparkplug.naming import is_control, signal_name
from fieldlab.sparkplug.payload import Metric, Payload


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One metric of a birth certificate."""

    name: str
    alias: int | None
    datatype: int


class Table:
    """The metrics of one birth certificate; it never changes.

    Attributes:
        entries: name → metric.
        aliases: alias → metric.
        signals: name → name of the signal; empty for one that is not read.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = {each.name: each for each in entries}
        self.aliases = {each.alias: each for each in self.entries.values() if each.alias is not None}
        self.signals: dict[str, str] = {}
        taken: set[str] = set()
        for name in self.entries:
            signal = "" if is_control(name) else signal_name(name)
            self.signals[name] = "" if signal in taken else signal  # two names, one signal: the first has it
            taken.add(signal)

    @classmethod
    def of(cls, birth: Payload) -> Self:
        """The table of a birth certificate.

        Raises:
            ValueError: if two of its metrics share an alias, or one has no name.
        """
        made = cls(Entry(each.name, each.alias, each.datatype) for each in birth.metrics)
        if "" in made.entries:
            raise ValueError("a metric of the birth certificate has no name")
        if len(made.aliases) != sum(each.alias is not None for each in made.entries.values()):
            raise ValueError("two metrics of the birth certificate share an alias")
        return made

    def find(self, metric: Metric) -> Entry | None:
        """The metric that `metric` is a value of."""
        return self.aliases.get(metric.alias) if metric.alias is not None else self.entries.get(metric.name)

    def unknown(self, data: Payload) -> int | None:
        """The first alias in `data` that is not in the table, if there is one."""
        aliases = self.aliases
        return next((m.alias for m in data.metrics if m.alias is not None and m.alias not in aliases), None)

    def agrees(self, other: "Table", data: Payload) -> bool:
        """Whether both tables understand `data`, and in the same way."""
        found = [(self.find(each), other.find(each)) for each in data.metrics]
        return all(mine is not None and mine == theirs for mine, theirs in found)

    def retyped(self, older: "Table") -> int:
        """How many metrics have another type than in `older`."""
        known = older.entries
        return sum(name in known and known[name].datatype != each.datatype for name, each in self.entries.items())
