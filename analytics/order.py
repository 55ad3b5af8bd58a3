"""Puts the readings of each machine in order of event time, within `lateness`.

The watermark of a machine is its newest event time less `lateness`; readings below it are released, sorted. A reading
that comes when its time is below the watermark already is late: counted, not judged. What is released does not depend
on how readings are cut into batches. Ticks release what is left when a machine has been silent for `lateness`: only
differences between ticks count, because the clocks of machines and agent differ.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.state import grow, pack, unpack
from fieldlab.model import Batch, concat

Ints = NDArray[np.int64]

_NEVER = -(2**62)
_NEWEST, _FLOOR, _QUIET, _FRESH, _LATE = range(5)


class Sorter:
    """Orders the readings of many machines."""

    def __init__(self, lateness_ns: int) -> None:
        self._lateness = lateness_ns
        self._clock = np.zeros((0, 5), np.int64)  # per machine: newest time, floor, quiet since, fresh data, late count
        self._machines = 0
        self._pending: list[Batch] = []
        self._machine: list[NDArray[np.int32]] = []

    @property
    def late(self) -> Ints:
        """Late readings of each machine so far."""
        return self._clock[: self._machines, _LATE].copy()

    @property
    def pending(self) -> int:
        """Readings that wait for their turn."""
        return sum(len(b) for b in self._pending)

    def grow(self, machines: int) -> None:
        """Make room for machines."""
        if machines > self._machines:
            self._clock = grow(self._clock, machines)
            self._clock[self._machines : machines, :3] = _NEVER
            self._machines = machines

    def set_lateness(self, lateness_ns: int) -> None:
        """Change the lateness; what was released stays released."""
        clock = self._clock[: self._machines]
        clock[:, _FLOOR] = self._watermark()
        self._lateness = lateness_ns

    def add(self, batch: Batch, machine: NDArray[np.int32], keep: NDArray[np.bool_]) -> None:
        """Take readings as they arrived; all move the watermark, those of `keep` wait for release."""
        if len(batch) == 0:
            return
        order = np.argsort(machine, kind="stable")
        by_machine, times = machine[order], batch.time[order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(by_machine)) + 1])
        which = by_machine[starts]
        clock = self._clock
        newest = np.maximum(clock[which, _NEWEST], np.maximum.reduceat(times, starts))
        suspicious = np.minimum.reduceat(times, starts) < np.maximum(clock[which, _FLOOR], newest - self._lateness)
        late = np.zeros(len(batch), bool)
        ends = np.append(starts[1:], len(times))
        for i in np.flatnonzero(suspicious).tolist():
            m, rows = int(which[i]), slice(int(starts[i]), int(ends[i]))
            before = np.maximum.accumulate(np.concatenate([clock[m : m + 1, _NEWEST], times[rows]]))[:-1]
            behind = times[rows] < np.maximum(clock[m, _FLOOR], before - self._lateness)
            late[order[rows][behind]] = True
            clock[m, _LATE] += int(np.count_nonzero(behind))
        clock[which, _NEWEST] = newest
        clock[which, _FRESH] = 1
        kept = keep & ~late
        if not kept.all():
            batch, machine = batch.take(kept), machine[kept]
        if len(batch):
            self._pending.append(batch)
            self._machine.append(machine)

    def tick(self, time: int) -> None:
        """Time passed on the agent's clock: machines that were silent for `lateness` release what they have."""
        clock = self._clock[: self._machines]
        fresh = clock[:, _FRESH] > 0
        clock[fresh, _QUIET] = time
        clock[fresh, _FRESH] = 0
        silent = ~fresh & (clock[:, _NEWEST] > _NEVER) & (time - clock[:, _QUIET] >= self._lateness)
        clock[silent, _FLOOR] = np.maximum(clock[silent, _FLOOR], clock[silent, _NEWEST] + 1)

    def release(self) -> tuple[Batch, NDArray[np.int32]]:
        """Readings whose turn has come, by machine, then time, then arrival; and their machines."""
        nothing = np.zeros(0, np.int32)
        if not self._pending:
            return concat([]), nothing
        batch, machine = concat(self._pending), np.concatenate(self._machine)
        ready = batch.time < self._watermark()[machine]
        if not ready.any():
            self._pending, self._machine = [batch], [machine]
            return concat([]), nothing
        wait = ~ready
        self._pending, self._machine = ([batch.take(wait)], [machine[wait]]) if wait.any() else ([], [])
        rows = np.flatnonzero(ready)
        rows = rows[np.lexsort((batch.time[rows], machine[rows]))]
        return batch.take(rows), machine[rows]

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        b = concat(self._pending)
        return {
            "machines": self._machines,
            "clock": pack(self._clock),
            "columns": [pack(c) for c in (b.signal, b.time, b.value, b.status, b.text_row, b.integer_row, b.integer)],
            "text": list(b.text),
            "machine": pack(np.concatenate([np.zeros(0, np.int32), *self._machine])),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._machines = saved["machines"]
        self._clock = unpack(saved["clock"])
        signal, time, value, status, text_row, integer_row, integer = (unpack(c) for c in saved["columns"])
        batch = Batch(signal, time, value, status, text_row, tuple(saved["text"]), integer_row, integer)
        self._pending, self._machine = ([batch], [unpack(saved["machine"])]) if len(batch) else ([], [])

    def _watermark(self) -> Ints:
        clock = self._clock[: self._machines]
        return np.asarray(np.maximum(clock[:, _FLOOR], clock[:, _NEWEST] - self._lateness))
