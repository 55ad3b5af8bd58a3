"""Rows that say how far the data can be trusted."""

import msgspec

from fieldlab.model.place import SignalKey


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Totals of one signal since the journal began: a row of the measurement `ledger`.

    received = committed + duplicate + rejected, always. `stored` counts the first configured store.
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
