"""What happened on a machine around the time when it changed: another tool, lot, program or state, an alarm of its own.

Nothing here says that one caused the other. What is nearest to the most likely time of the change comes first. What
changes all the time, such as a state with every part, explains nothing and is left out.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from analytics.config import PartConfig
from analytics.parts import text_at
from fieldlab.model import Batch, MachineEvent, Place, SignalInfo, SignalKey
from fieldlab.model.status import is_good

BEFORE_NS = 3600 * 10**9  # how long before a change something may have happened to be told
AFTER_NS = 60 * 10**9  # the most likely time of a change is known to some values only
MOST_TOLD = 3
OFTEN = 5  # changes of one signal in that time
MOST_SEEN = 200  # the newest on one machine before a finding: what is told does not depend on what else is kept
MOST_KEPT = 400  # of one machine, besides those of the readings at hand


class Coincidences:
    """What happened lately on every machine, in event time."""

    def __init__(self) -> None:
        self._keys: dict[int, SignalKey] = {}  # signals whose changes are told
        self._now: dict[int, str] = {}  # what each says
        self._log: dict[str, list[tuple[int, str, str]]] = {}  # machine path → (time, what, words)

    def unwire(self) -> None:
        """Forget which signals are followed, not what they said."""
        self._keys = {}

    def wire(self, index: int, key: SignalKey, parts: PartConfig | None) -> None:
        """Follow a signal, if its changes may explain others: what rides along with parts, and the state."""
        if key.name == "state" or (parts is not None and key.name in (*parts.genealogy, *parts.consume)):
            self._keys[index] = key

    def take(self, batch: Batch, infos: Callable[[SignalKey], SignalInfo]) -> None:
        """Note changes among readings that are about to be judged; those of one machine are in order."""
        for path, log in self._log.items():
            if len(log) > MOST_KEPT:
                self._log[path] = sorted(log)[-MOST_KEPT:]
        followed = np.isin(batch.signal, list(self._keys)) if self._keys else np.zeros(len(batch), bool)
        for row in np.flatnonzero(followed & is_good(batch.status)).tolist():
            index = int(batch.signal[row])
            key = self._keys[index]
            text, before = text_at(batch, row, infos(key)), self._now.get(index)
            if text and text != before:
                self._now[index] = text
                if before is not None:
                    self._note(key.place, int(batch.time[row]), key.name, f"{before} → {text}")

    def hear(self, event: MachineEvent) -> None:
        """Note what a machine itself reports, but for an alarm that goes away."""
        if event.active is not False:
            self._note(event.place, event.time, event.source or event.kind, event.message)

    def around(self, place: Place, change: int, now: int) -> str:
        """What happened in the hour before a change, in words, nearest first; empty for nothing."""
        until = min(change + AFTER_NS, now)
        newest = sorted(entry for entry in self._log.get(place.path, ()) if entry[0] <= now)[-MOST_SEEN:]
        found = [entry for entry in newest if change - BEFORE_NS <= entry[0] <= until]
        often = {what for what, n in Counter(what for _, what, _ in found).items() if n > OFTEN}
        nearest = sorted((e for e in found if e[1] not in often), key=lambda e: (abs(e[0] - change), e))
        if not nearest:
            return ""
        told = ", ".join(
            f"{what} {words}".rstrip() + f" ({_apart(change - t)})" for t, what, words in nearest[:MOST_TOLD]
        )
        more = len(nearest) - MOST_TOLD
        return f"; around then: {told}" + (f" and {more} more" if more > 0 else "")

    def _note(self, place: Place, time: int, what: str, words: str) -> None:
        self._log.setdefault(place.path, []).append((time, what, words))

    def save(self) -> dict[str, Any]:
        """State as plain values."""
        return {"now": list(self._now.items()), "log": [(path, list(log)) for path, log in self._log.items()]}

    def load(self, saved: dict[str, Any]) -> None:
        """Take the state of `save`."""
        self._now = {int(index): str(text) for index, text in saved["now"]}
        self._log = {path: [(int(t), str(what), str(words)) for t, what, words in log] for path, log in saved["log"]}


def _apart(ns: int) -> str:
    seconds = abs(ns) / 1e9
    said = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{said} before" if ns > 0 else f"{said} after" if seconds >= 1 else "at that time"
