"""The ledger's report: counts, guarantee and gaps of each signal, and whether they add up, as JSON can hold it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from fieldlab.model import Gap, Guarantee, SignalKey
from ingest.audit import RECEIVED, Audit, StoreAudit, audit
from ingest.forwarder import Takes
from ingest.gaps import Folded, Gaps
from ingest.journal import Journal
from ingest.ledger import loss
from ingest.stores.base import StoreError

GAPS = 10_000  # of a report, the newest
_OF_STORE = ("before", "stored", "dead", "dropped", "left_out", "waiting")

Count = Callable[[int, int], Mapping[SignalKey, int]]


def report(
    journal: Journal,
    gaps: Gaps,
    stores: Sequence[str],
    agent: str,
    *,
    since: int = 0,
    count: Count | None = None,
    takes: Mapping[str, Takes] | None = None,
) -> dict[str, Any]:
    """Everything about what came and what did not. Counts are since the journal began.

    Args:
        journal: of the agent.
        gaps: of that journal.
        stores: names of the stores that take readings, the first one first.
        agent: the agent's name.
        since: ns; gaps that ended before are left out, but for their number.
        count: what the first store answers for an interval; it may have more (of another journal) or less (retention).
        takes: which signals those stores take that do not take all.
    """
    counted = audit(journal, stores, takes)
    signals = _signals(journal, counted, gaps, _count(count, since))
    found = gaps.since(since)
    faults = [f"{journal.signals[signal].path}: {words}" for signal, each in counted.broken().items() for words in each]
    if counted.damaged:
        faults.append(f"{counted.damaged} damaged records: their readings are in no count")
    return {
        "agent": agent,
        "time": time.time_ns(),
        "since": since,
        "position": counted.position,
        "holds": not faults,
        "faults": faults,
        "totals": {
            **{name: int(counted.counts[name].sum()) for name in RECEIVED},
            "rejected_input": _letters_of_nobody(journal),
        },
        "stores": [{"name": s.name, **_of_store(s)} for s in counted.stores],
        "signals": signals,
        "gap_counts": gaps.counts(),
        "gaps_in_report": len(found),
        "gaps": [gap_row(gap) for gap in found[-GAPS:]],
        "gaps_folded": [_folded(journal, of, sums) for of, sums in gaps.folded().items()],
    }


def _signals(
    journal: Journal, counted: Audit, gaps: Gaps, kept: Mapping[SignalKey, int] | None
) -> list[dict[str, Any]]:
    guarantees = gaps.guarantees()
    unclosed = not_closed(journal, gaps)
    some = np.zeros(len(counted.counts["received"]), np.bool_)
    for column in counted.counts.values():
        some |= column > 0
    rows = []
    for i, key in enumerate(journal.signals.since(0)[: len(some)]):
        if not some[i] and i not in guarantees:
            continue
        counts = {name: int(counted.counts[name][i]) for name in RECEIVED}
        stores: list[dict[str, Any]] = [{"name": s.name, **_of_store(s, i)} for s in counted.stores]
        lost = counts["overflow"] + (int(counted.stores[0].dropped[i]) if stores else 0)
        guarantee: Guarantee = guarantees.get(i, "end-to-end")
        open_gaps, seconds = unclosed.get(i, (0, 0.0))
        row = {
            "signal": key.short,
            "path": key.path,
            "guarantee": guarantee,
            "loss": loss(guarantee, lost, open_gaps),
            **counts,
            "lost": lost,
            "stores": stores,
            "gaps_not_closed": open_gaps,
            "gap_seconds": seconds,
        }
        if kept is not None:
            row["in_store"] = kept.get(key, 0)
        rows.append(row)
    return sorted(rows, key=lambda row: str(row["path"]))


def not_closed(journal: Journal, gaps: Gaps) -> dict[int, tuple[int, float]]:
    """Number and seconds of the gaps that are not closed, by signal; open ones last until now."""
    now = time.time_ns()
    found: dict[int, tuple[int, float]] = {}

    def add(signal: int, number: int, seconds: float) -> None:
        before = found.get(signal, (0, 0.0))
        found[signal] = before[0] + number, before[1] + seconds

    for gap in gaps.since(0):
        if gap.state != "closed":
            end = gap.end or max(now, gap.time)
            add(journal.signals.index(gap.key), 1, (end - gap.time) / 1e9)
    for (signal, _, state), sums in gaps.folded().items():
        if state != "closed":
            add(signal, sums.gaps, sums.seconds)
    return found


def _of_store(store: StoreAudit, signal: int | None = None) -> dict[str, int]:
    columns = {name: getattr(store, name) for name in _OF_STORE}
    return {name: int(column.sum() if signal is None else column[signal]) for name, column in columns.items()}


def _count(count: Count | None, since: int) -> Mapping[SignalKey, int] | None:
    try:
        return None if count is None else count(since, 2**63 - 1)
    except StoreError:  # it is away: the report does without
        return None


def _letters_of_nobody(journal: Journal) -> int:
    """Input that could not be read and belongs to no signal: it is in the dead letter, and in no signal's count."""
    ((count,),) = journal.select("SELECT count(*) FROM deadletter WHERE signal = ''")
    return int(count)


def gap_row(gap: Gap) -> dict[str, Any]:
    """A gap as reports and boards show it; `end` is 0 while it goes on."""
    row: dict[str, Any] = msgspec.to_builtins(gap)
    names = ("end", "state", "recovered", "lost", "source", "detail")  # those that are left out at their default
    row |= {name: getattr(gap, name) for name in names}
    row.pop("key")
    return {**row, "start": row.pop("time"), "signal": gap.key.short, "path": gap.key.path}


def _folded(journal: Journal, of: tuple[int, str, str], sums: Folded) -> dict[str, Any]:
    signal, cause, state = of
    key = journal.signals[signal]
    return {"signal": key.short, "path": key.path, "cause": cause, "state": state, **msgspec.to_builtins(sums)}
