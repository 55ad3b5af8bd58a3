"""One gap that is being read again: what of the server's history is new, and whether it covers the gap."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fieldlab.model import Batch, Gap

_MS: Final = 1_000_000
_ALIKE: Final = 5_000_000_000  # ns: gaps whose ends differ by less are read by one call


class Refill:
    """The state of a gap that is read again.

    Args:
        gap: it; it has ended.
        handle: the client handle of its node.
        signal: its signal's index.
        earliest: nothing before this is read, ns.
        known: times of readings inside the gap that the journal has, ns, (n,).
        newest: the time of the signal's newest live reading, ns; 0 if none came since the agent started.

    Attributes:
        start: where reading begins, ns.
        through: everything up to here is in the journal, ns: a later try goes on there.
        recovered: readings that the journal did not have.
        reached: whether the server's history is known to reach back to `start`.
        refused: the status that the server refused the node with.
        hole: whether the server said that history has a hole there.
        kept: whether the server keeps a history of the node, and lets us read it.
    """

    def __init__(
        self, gap: Gap, handle: int, signal: int, earliest: int, known: NDArray[np.int64], newest: int = 0
    ) -> None:
        self.gap = gap
        self.handle = handle
        self.signal = signal
        self.start = max(gap.time, earliest)
        self.through = self.start
        self.recovered = 0
        self.reached = False
        self.refused = ""
        self.hole = False
        self.kept = True
        self._known = known
        self._first = 0  # time of the first value that history has there, ns
        self._newest = 0  # time of the newest, ns
        # History is whole if it has the last reading known to lie in the gap: its end, unless that is only a moment.
        surely = gap.time if gap.cause == "notification_lost" else min(gap.end, newest or gap.end)
        self._last = int(known.max()) if len(known) else surely

    def take(self, batch: Batch) -> Batch:
        """The readings of `batch` that the journal does not have: those inside the gap, without its two ends.

        Of two that share a time, the later one moves on by a nanosecond, as live readings do.
        """
        times = batch.time
        if len(times):
            self._first = min(self._first or int(times.min()), int(times.min()))
            self._newest = max(self._newest, int(times.max()))
            self.reached |= self._first <= self.start
        inside = (batch.signal == self.signal) & (times > max(self.through, self.gap.time)) & (times < self.gap.end)
        if len(self._known):
            inside &= ~np.isin(times, self._known)
        rows = np.flatnonzero(inside)
        return apart(batch.take(rows[np.argsort(times[rows], kind="stable")]))

    def commit(self, taken: Batch) -> None:
        """What `take` gave is on disk."""
        self.recovered += len(taken)
        self.through = max(self.through, int(taken.time[-1]))

    @property
    def late(self) -> bool:
        """Whether history ends before the gap does: it may be written late."""
        return self.reached and self._ends_early

    @property
    def _ends_early(self) -> bool:
        return self._last > self.gap.time and self._newest < self._last // _MS * _MS

    def why_not(self) -> str:  # noqa: PLR0911  a table of reasons, one return each
        """Why the gap cannot be closed, in words; empty if it can."""
        if not self.kept:
            return "the server keeps no history of this node that we may read (AccessLevel without HistoryRead)"
        if self.refused:
            return f"the server refuses its history: {self.refused}"
        if self.start > self.gap.time:
            return f"older than history_max: nothing before {_words(self.start)} was read"
        if not self.reached:
            if not self._first:
                return "the server's history has nothing of that time"
            return f"the server's history begins at {_words(self._first)}: what was before is missing"
        if self.hole:
            return "the server says that its history has a hole there"
        if self.late:
            return f"the server's history ends at {_words(self._newest or self.start)}: what came later is missing"
        return ""

    def rests(self) -> list[tuple[int, int]]:
        """The parts of the gap that history does not cover, in order; none where it covers none, or cannot be told."""
        if not self.kept or self.refused or self.hole or not self._first:
            return []
        begin = self.start if self.reached else max(self._first, self.start)
        end = self._newest if self._ends_early else self.gap.end
        if begin >= end or (begin, end) == (self.gap.time, self.gap.end):
            return []
        around = [(self.gap.time, begin), (end, self.gap.end)]
        return [(start, stop) for start, stop in around if start < stop]


def apart(batch: Batch) -> Batch:
    """Readings of one signal in order of time, each at a time of its own: exact repeats go, others move on by 1 ns."""
    times = batch.time
    if (np.diff(times) > 0).all():
        return batch
    texts = batch.texts()
    integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
    kept: list[int] = []
    moved: list[int] = []
    given, newest, last = -1, -1, None
    columns = zip(times.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True)
    for row, (time, value, status) in enumerate(columns):
        what = (texts.get(row), integers.get(row), repr(value), status)
        if time == given and what == last:
            continue
        newest = max(time, newest + 1)
        given, last = time, what
        kept.append(row)
        moved.append(newest)
    found = batch.take(np.array(kept, np.intp))
    return Batch(
        found.signal,
        np.array(moved, np.int64),
        found.value,
        found.status,
        found.text_row,
        found.text,
        found.integer_row,
        found.integer,
    )


def in_calls(refills: Sequence[Refill], nodes: int) -> Iterator[list[Refill]]:
    """Groups of refills, of at most `nodes` nodes, that want about the same interval; a signal once in each."""
    group: list[Refill] = []
    handles: set[int] = set()
    signals: set[int] = set()
    for refill in sorted(refills, key=lambda r: (r.through // _ALIKE, r.gap.end // _ALIKE, r.handle, r.through)):
        first = group[0] if group else refill
        alike = refill.through - first.through < _ALIKE and abs(refill.gap.end - first.gap.end) < _ALIKE
        full = refill.handle not in handles and len(handles) >= nodes
        if group and (full or not alike or refill.signal in signals):
            yield group
            group, handles, signals = [], set(), set()
        group.append(refill)
        handles.add(refill.handle)
        signals.add(refill.signal)
    if group:
        yield group


def _words(time: int) -> str:
    return dt.datetime.fromtimestamp(time / 1e9, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
