"""Rows that say how far the data can be trusted."""

import hashlib
from typing import Literal

import msgspec

from fieldlab.model.place import SignalKey

GapCause = Literal[
    "agent_down",
    "source_down",
    "queue_overflow",
    "notification_lost",
    "store_refused",
    "journal_full",
    "journal_damaged",
]
GapState = Literal["open", "ended", "closed", "unverifiable"]


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Totals of one signal since the journal began: a row of the measurement `ledger`.

    received = committed + duplicate + rejected, always. `stored` and `dead` count the first configured store
    that takes readings.
    """

    time: int
    key: SignalKey
    agent: str
    received: int = 0
    committed: int = 0
    stored: int = 0
    bad: int = 0
    overflow: int = 0
    duplicate: int = 0
    dead: int = 0


class AgentRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent's own figures: a row of the measurement `agent`, one field a figure."""

    time: int
    agent: str
    figures: dict[str, float] = {}


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a gap: an interval in which readings of a signal may be missing; a row of the measurement `gap`.

    Attributes:
        time: when the gap began, by the machine's clock where it is known, ns.
        key: which signal.
        agent: who noticed.
        cause: why readings may be missing.
        id: see `gap_id`; the revisions of one gap share it.
        revision: 1 when noticed, one more at each change.
        state: `open`: it goes on; `ended`: over, and what is missing is missing still; `closed`: nothing is missing
            (the source had kept it, or it was read again); `unverifiable`: over, and nobody can say what was missed.
        end: when it ended, ns; 0 while it goes on.
        recovered: readings that were read again.
        lost: readings known to be lost; 0 also where nobody can count them.
        source: the source or store that it happened at.
        detail: in words.
    """

    time: int
    key: SignalKey
    agent: str
    cause: GapCause
    id: str
    revision: int = 1
    state: GapState = "open"
    end: int = 0
    recovered: int = 0
    lost: int = 0
    source: str = ""
    detail: str = ""


def gap_id(key: SignalKey, source: str, cause: GapCause, start: int) -> str:
    """16 hexadecimal digits that the same gap always gets, crash or not."""
    words = f"{key.path}\0{source}\0{cause}\0{start}"
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
