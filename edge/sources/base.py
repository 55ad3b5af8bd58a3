"""What a source is, and what it may do with what it read."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from fieldlab.model import Batch, Gap, GapCause, Guarantee, SignalInfo, SignalKey
from fieldlab.model.record import Row
from ingest.gaps import Over
from ingest.journal.identity import Delivery
from ingest.stores.base import DeadLetter

__all__ = [
    "CheckLine",
    "Delivery",
    "Over",
    "Resending",
    "Sink",
    "Source",
    "SourceContext",
    "SourceKind",
    "SourceStatus",
]


class Sink(Protocol):
    """Where a source puts what it read. Every method is safe to call from any thread and never blocks.

    A returned future is done when what was given is on disk, fsynced: acknowledge then, not before. While the journal
    is full or the disk refuses, it stays pending: keep the number of pending futures bounded and stop reading
    meanwhile. It fails only if the agent ends or the input itself cannot be kept; then do not acknowledge.
    """

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        """Say what is known of a signal, and get its index. The configuration's `[[signal]]` rules win.

        Values are stored as raw * scale + offset.

        Raises:
            TooManySignalsError: if it is new and the agent has `max_series` already.
        """
        ...

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        """The index of a signal, which is described from the configuration if it is new.

        Raises:
            TooManySignalsError: as above.
        """
        ...

    def append(
        self,
        batch: Batch,
        *,
        delivery: Delivery | None = None,
        overflow: dict[int, int] | None = None,
    ) -> Future[None]:
        """Keep readings, raw as the machine gave them. `overflow`: signal index → readings known to be lost."""
        ...

    def backfill(self, batch: Batch, *, delivery: Delivery | None = None) -> Future[None]:
        """Keep readings of the past, raw: stored in a lane of their own, and never judged."""
        ...

    def write(self, rows: Sequence[Row]) -> Future[None]:
        """Keep rows that are no readings, such as `MachineEvent`. Rows of one series need times of their own."""
        ...

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> Future[None]:
        """Keep input that cannot be read, with its reason, in the dead letter."""
        ...

    # Gaps: times are ns by the machine's clock where it is known; a signal is meant by its index.

    def open_gap(self, source: str, cause: GapCause, since: Mapping[int, int], *, detail: str = "") -> None:
        """Say that readings may be missing from now on.

        A gap of the same source, cause and signal that is open goes on; one that ended less than a second ago opens
        again: a connection that flaps is one gap.

        Args:
            source: the source's name.
            cause: why they may be missing.
            since: signal → the last moment up to which nothing is missing, such as its last reading.
            detail: in words.
        """
        ...

    def end_gap(
        self,
        source: str,
        until: Mapping[int, int] | int,
        *,
        state: Over,
        cause: GapCause | None = None,
        lost: int = 0,
        detail: str = "",
    ) -> None:
        """Say that the open gaps of a source are over.

        Args:
            source: the source's name.
            until: signal → when; or one time for every open gap of the source.
            state: `closed`: the server had kept everything and it came; `ended`: what is missing is missing still;
                `unverifiable`: nobody can say.
            cause: only gaps of this cause.
            lost: readings of each signal known to be lost.
            detail: in words; absent: as it was.
        """
        ...

    def note_gap(
        self,
        source: str,
        cause: GapCause,
        spans: Mapping[int, tuple[int, int]],
        *,
        state: Over = "ended",
        lost: Mapping[int, int] | int = 0,
        detail: str = "",
    ) -> None:
        """Say that there was a gap that is known only afterwards, such as a queue's overflow.

        Args:
            source: the source's name.
            cause: why readings may be missing.
            spans: signal → start and end. One that begins within a second of the end of the last continues it.
            state: as in `end_gap`.
            lost: readings known to be lost, of each signal or by signal. The ledger counts them by `overflow` of
                `append`, not by this.
            detail: in words.
        """
        ...

    def gaps(self, source: str) -> list[Gap]:
        """The gaps of a source that are open or ended, oldest first, also those of earlier runs: to be read again."""
        ...

    def close_gaps(
        self,
        recovered: Mapping[str, int],
        *,
        state: Over = "closed",
        detail: str = "",
        rests: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> Future[None]:
        """Settle gaps (id → readings that were read again), after the back-fill that did it.

        Ids that are not known are passed over: a gap may have gone into the sums meanwhile. `rests` says of a gap that
        was read again in part which intervals are missing still: those stay `ended`, and the others are closed.
        """
        ...

    def signals_of(self, source: str) -> dict[int, SignalKey]:
        """The signals that a source has had, also in earlier runs: index → which."""
        ...

    def last_times(self, signals: Iterable[int]) -> dict[int, int]:
        """The time of the newest reading of each of `signals` that the journal has seen, also in earlier runs."""
        ...


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a source is doing, for `status`, `/metrics` and the board.

    Attributes:
        name: the source's name, such as `opcua-0`.
        kind: opcua, mqtt.
        url: the server or broker, without secrets.
        connected: whether a session is up.
        error: what is wrong now, in words; empty if nothing is.
        signals: signals that it reads now.
        missing: signals that it cannot read, each with its reason.
        last_data: when the newest reading arrived, ns; 0 for never.
        counters: named totals, such as `reconnects`.
    """

    name: str
    kind: str
    url: str
    connected: bool
    error: str = ""
    signals: int = 0
    missing: dict[str, str] = {}
    last_data: int = 0
    counters: dict[str, int] = {}


class Source(Protocol):
    """Reads one server or broker, for ever.

    Attributes:
        name: unique in the agent.
    """

    name: str

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; reconnect for ever meanwhile. At a stop, keep the session on the server."""
        ...

    def status(self) -> SourceStatus:
        """How it is doing; safe to call from any thread."""
        ...


@runtime_checkable
class Resending(Protocol):
    """A source that can keep what it set aside, after all."""

    name: str

    def resend(self, letter: DeadLetter) -> Future[None]:
        """Keep the readings of a letter of this source, in the lane of the past; done when they are on disk.

        Raises:
            ValueError: if it cannot. The text says why.
        """
        ...


class CheckLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `fieldlab check`.

    Attributes:
        level: `fail` makes the exit status 1.
        subject: what was checked, such as `opcua-0 cnc-07/diameter`.
        text: what was found, and what to do.
        data: the same for programs.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    text: str
    data: dict[str, Any] = {}


class SourceContext(msgspec.Struct, frozen=True, kw_only=True):
    """What every source is told about its agent.

    Attributes:
        name: the source's name, such as `mqtt-1`.
        agent: the agent's name.
        index: the source's index in the configuration: `{agent}-{index}` is the default MQTT client id.
        site: default of the path.
        area: default of the path.
        line: default of the path.
        data: the agent's data folder, for certificates.
    """

    name: str
    agent: str
    index: int
    site: str
    area: str
    line: str
    data: Path


class SourceKind(Protocol):
    """A kind of source: a module of `edge.sources` exposes one as `KIND`.

    Attributes:
        config: the struct of its `[[source]]` table; it has the field `kind`.
    """

    config: type[msgspec.Struct]

    def create(self, config: Any, context: SourceContext, sink: Sink) -> Source:
        """A source, not yet connected.

        Raises:
            ConfigError: if the table makes no sense as a whole. `key` names the key within the table.
        """
        ...

    async def check(self, config: Any, context: SourceContext) -> list[CheckLine]:
        """Try everything that the source would do, without disturbing a running agent and without a journal."""
        ...
