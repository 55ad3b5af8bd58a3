"""What a store is, and what a reader of a store can answer.

StoreError
├── StoreUnavailableError    try the same records again, later
└── StoreMisconfiguredError  the same, but a person must act (token, bucket); tried again slowly
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

from fieldlab.model import (
    ActionRow,
    ChartPoint,
    Finding,
    MachineEvent,
    MachineState,
    PartEvent,
    Record,
    RecordKind,
    SignalInfo,
    SignalKey,
    SignalTable,
    Verdict,
)

QUERYABLE = frozenset(RecordKind) - {RecordKind.TICK, RecordKind.CONTROL}
"""The kinds of record that have a measurement in ingest/README.md."""


class StoreError(Exception):
    """A store did not take the records; none of them counts as stored.

    Attributes:
        retry_after: seconds the store asked us to wait, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailableError(StoreError):
    """The store is away, slow or busy: trying again later can help."""


class StoreMisconfiguredError(StoreError):
    """The store refuses us (401, 403, 404): a person must act, and nothing is thrown away meanwhile."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What was refused for good, kept with its reason.

    Attributes:
        store: the store's name, or the source's name for input that could not be read.
        machine: the machine's path, or the topic where there is none.
        signal: the signal's name, or empty.
        readings: how many readings it holds (1 for a payload that could not be read).
        reason: the server's words, or what was wrong.
        first: earliest time, ns.
        last: latest time, ns.
        body: what was refused, as it was sent or received.
        counts: signal index → readings, for the ledger.
    """

    store: str
    machine: str
    signal: str
    readings: int
    reason: str
    first: int
    last: int
    body: bytes
    counts: dict[int, int] = {}


class Store(Protocol):
    """Takes records, at least once, in order. Methods may block: a forwarder has a thread for them.

    Attributes:
        name: unique in the agent; the name of its cursor.
        kinds: the kinds of record it takes.
    """

    name: str
    kinds: frozenset[RecordKind]

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        """Keep all `records`, or raise. Writing the same records again changes nothing.

        Returns:
            What the store refuses for good; everything else is safely kept.

        Raises:
            StoreError: nothing counts as kept; the same records come again.
        """
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


@runtime_checkable
class Choosy(Protocol):
    """A store that takes the readings of some signals only; the ledger counts the others as left out."""

    def takes(self) -> NDArray[np.bool_]:
        """Whether it takes each signal of the table, (signals,); safe to call from any thread."""
        ...


class Series(msgspec.Struct, frozen=True, eq=False):
    """Readings of one signal, ascending in time.

    Attributes:
        time: ns, (n,).
        value: (n,) NaN where there is no number.
        status: (n,) OPC UA StatusCode.
        text: row → text.
    """

    time: NDArray[np.int64]
    value: NDArray[np.float64]
    status: NDArray[np.uint32]
    text: Mapping[int, str] = {}


class Reader(Protocol):
    """What board, reports and score ask of a store. Times are ns; `end` is exclusive. Methods may block."""

    def signals(self) -> list[SignalInfo]:
        """The newest description of every signal that has readings or a description."""
        ...

    def telemetry(self, key: SignalKey, start: int, end: int, *, limit: int = 10_000) -> Series:
        """The newest `limit` readings of a signal in [start, end)."""
        ...

    def latest(self, start: int) -> dict[SignalKey, Series]:
        """The newest reading of each signal that has any since `start`; each series has one row."""
        ...

    def counts(self, start: int = 0, end: int = 2**63 - 1) -> dict[SignalKey, int]:
        """Readings kept of each signal in [start, end), those without a value included."""
        ...

    def chart_points(self, start: int, end: int, *, chart: str | None = None, limit: int = 10_000) -> list[ChartPoint]:
        """The newest `limit` chart points, ascending in time."""
        ...

    def findings(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Finding]:
        """The newest revision of each of the newest `limit` findings, newest first."""
        ...

    def verdicts(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[Verdict]:
        """The newest revision of each of the newest `limit` verdicts, newest first."""
        ...

    def part_events(self, part: str, *, limit: int = 1_000) -> list[PartEvent]:
        """What happened to a part, oldest first."""
        ...

    def part_verdicts(self, part: str, *, limit: int = 1_000) -> list[Verdict]:
        """Every revision of every verdict on a part, on whatever machine, oldest first."""
        ...

    def consumers(self, other: str, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[PartEvent]:
        """The newest `limit` consume events of a child part, lot, tool or whatever rode along, oldest first."""
        ...

    def finding(self, finding_id: str) -> list[Finding]:
        """Every revision of a finding, oldest first."""
        ...

    def machine_states(self) -> list[MachineState]:
        """The newest state of each machine."""
        ...

    def events(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[MachineEvent]:
        """The newest `limit` events of machines, newest first."""
        ...

    def conditions(self, *, limit: int = 1_000) -> list[MachineEvent]:
        """The newest event of each condition (and of each branch of it) that wants attention, newest first."""
        ...

    def actions(self, start: int = 0, end: int = 2**63 - 1, *, limit: int = 1_000) -> list[ActionRow]:
        """The last word on each of the newest `limit` actions, newest first."""
        ...


class StoreContext(msgspec.Struct, frozen=True, kw_only=True):
    """What every store is told about its agent.

    Attributes:
        name: the store's name, unique in the agent; the name of its cursor.
        agent: the agent's name.
        data: the agent's data folder.
        place: where the agent's machines stand unless they say otherwise: `site/area/line`.
    """

    name: str
    agent: str
    data: Path
    place: str = ""


class StoreCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `fieldlab check` about a store.

    Attributes:
        level: `fail` makes the exit status 1.
        text: what was found, and what to do.
    """

    level: Literal["ok", "warn", "fail"]
    text: str


class StoreKind(Protocol):
    """A kind of store: a package of `ingest.stores` exposes one as `KIND`.

    Attributes:
        config: the struct of its `[[store]]` table; it has the fields `kind` and `name`.
    """

    config: type[msgspec.Struct]

    def create(self, config: Any, context: StoreContext, signals: SignalTable) -> tuple[Store, Reader | None]:
        """A store, and its reader if it can be queried. Connects to nothing yet; a file is opened.

        Raises:
            ConfigError: if a secret cannot be read, or the table makes no sense as a whole.
            StoreError: if the store's file cannot be opened.
        """
        ...

    def check(self, config: Any, context: StoreContext) -> list[StoreCheck]:
        """Try what the store would do, without writing anything and without disturbing a running agent."""
        ...
