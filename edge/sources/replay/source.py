"""Plays a recorded file into a sink at full speed, a chunk of rows at a time."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.sources.base import Sink, SourceContext
from edge.sources.replay.config import ReplayConfig
from edge.sources.replay.table import MISSING, Table, numbers
from edge.sources.replay.times import NO_TIME, strictly_ascending, to_ns
from fieldlab.errors import ConfigError
from fieldlab.model import Batch, Place, SignalInfo, SignalKey

SECOND = 1_000_000_000
BAD_TYPE_MISMATCH = 0x80740000
_EARLIEST = -(2**62)
_JOURNAL_BATCH = 20_000  # readings given to the sink at once


class Played(msgspec.Struct, frozen=True, eq=False):
    """A chunk of rows that the sink has.

    Attributes:
        time: event time of each row, ns, (n,); `NO_TIME` where it has none.
        written: the time as the file writes it, or the row's number.
    """

    time: NDArray[np.int64]
    written: list[str]


class Player:
    """Plays one file.

    Args:
        config: the `[[source]]` table.
        context: the place.
        path: the file.
        sink: where readings go.

    Attributes:
        place: the machine.
        signals: column → name of the signal, once the first chunk was read.
        counters: `rows`, `readings`, `rows_without_time`, `rows_at_one_time`, `rows_back_in_time`, `not_a_number`,
            `short_rows`.

    Raises:
        ConfigError: if the time column, or every column asked for, is not in the file.
        RefusedError: if the file cannot be read.
    """

    def __init__(self, config: ReplayConfig, context: SourceContext, path: Path, sink: Sink) -> None:
        self._config = config
        self._sink = sink
        self._table = Table(path)
        self.signals: dict[str, str] = {}
        try:
            line = f"{config.site or context.site}/{config.area or context.area}/{config.line or context.line}"
            self.place = Place.parse(f"{line}/{config.machine}")
        except ValueError as e:
            raise ConfigError(str(e), key="machine") from None
        columns = self._table.layout.columns
        known = f"columns of {path.name}: {', '.join(columns)}"
        if config.time and config.time not in columns:
            raise ConfigError(f"there is no column {config.time!r}; {known}", key="time")
        self._asked = [name for name in columns if name != config.time and self._wanted(name)]
        if not self._asked:
            raise ConfigError(f"no column fits {', '.join(config.columns)}; {known}", key="columns")
        self.counters = dict.fromkeys(
            ("rows", "readings", "rows_without_time", "rows_at_one_time", "rows_back_in_time", "not_a_number"), 0
        )

    def play(self) -> Iterator[Played]:
        """Give the sink every row, a chunk at a time; each is on disk before it is yielded.

        Raises:
            ConfigError: if no column is numeric.
        """
        layout = self._table.layout
        first, last = 0, NO_TIME
        indices: dict[str, int] = {}
        for cells in self._table.chunks():
            by_name = dict(zip(layout.columns, cells, strict=True))
            if not first:
                indices = self._describe(by_name)
            rows = len(cells[0])
            written = by_name[self._config.time] if self._config.time else [str(first + i) for i in range(rows)]
            raw = (
                to_ns(written, decimal_comma=layout.decimal_comma)
                if self._config.time
                else (np.arange(rows, dtype=np.int64) + first) * SECOND
            )
            time, same = strictly_ascending(raw, last)
            timed = time[time != NO_TIME]
            self.counters["rows"] += rows
            self.counters["rows_without_time"] += rows - len(timed)
            self.counters["rows_at_one_time"] += same
            self.counters["rows_back_in_time"] += int(
                np.count_nonzero(np.diff(timed, prepend=max(last, _EARLIEST)) < 0)
            )
            self.counters["short_rows"] = self._table.short_rows
            columns = [by_name[name] for name in indices]
            self._give(np.fromiter(indices.values(), np.uint32), columns, time)
            yield Played(time, written)
            first += rows
            last = int(timed[-1]) if len(timed) else last

    def _wanted(self, name: str) -> bool:
        return not self._config.columns or any(fnmatchcase(name, glob) for glob in self._config.columns)

    def _describe(self, cells: dict[str, list[str]]) -> dict[str, int]:
        """The numeric ones of the columns asked for, by what the first chunk holds: column → index of its signal."""
        found: dict[str, int] = {}
        for name in self._asked:
            _, wrong = numbers(cells[name], decimal_comma=self._table.layout.decimal_comma)
            there = sum(cell.strip().lower() not in MISSING for cell in cells[name])
            if there == 0 or 2 * int(np.count_nonzero(wrong)) >= there:
                continue  # text
            self.signals[name] = signal_name(name)
            info = SignalInfo(key=SignalKey(self.place, self.signals[name]))
            found[name] = self._sink.describe(info)
        if not found:
            raise ConfigError(f"no column of {self._table.path.name} is numeric", key="columns")
        return found

    def _give(self, indices: NDArray[np.uint32], columns: list[list[str]], time: NDArray[np.int64]) -> None:
        """Row by row, so that the readings of one row stand together."""
        comma = self._table.layout.decimal_comma
        parsed = [numbers(cells, decimal_comma=comma) for cells in columns]
        value = np.stack([v for v, _ in parsed], axis=1)
        wrong = np.stack([w for _, w in parsed], axis=1)
        use = (time != NO_TIME)[:, None] & (wrong | ~np.isnan(value))
        self.counters["not_a_number"] += int(np.count_nonzero(wrong))
        rows, which = np.nonzero(use)
        status = np.where(wrong[use], np.uint32(BAD_TYPE_MISMATCH), np.uint32(0))
        self.counters["readings"] += len(rows)
        waiting = []
        for start in range(0, len(rows), _JOURNAL_BATCH):
            part = slice(start, start + _JOURNAL_BATCH)
            batch = Batch.of(indices[which[part]], time[rows[part]], value[use][part], status[part])
            waiting.append(self._sink.append(batch))
        for future in waiting:
            future.result()


def signal_name(column: str) -> str:
    """The column's name as a signal's name: what a path cannot hold becomes `_`."""
    name = "".join("_" if c in "/+#$\0" or not c.isprintable() else c for c in column)
    return name[:200]
