"""What the journal holds: records of a few kinds, each a batch of readings or a list of rows."""

from enum import IntEnum

import msgspec

from fieldlab.model.action import ActionRow
from fieldlab.model.batch import Batch
from fieldlab.model.chart import ChartPoint
from fieldlab.model.control import Control, MachineState
from fieldlab.model.event import MachineEvent
from fieldlab.model.finding import Finding
from fieldlab.model.part import PartEvent, Verdict
from fieldlab.model.signal import SignalInfo
from fieldlab.model.trust import AgentRow, Gap, LedgerRow


class RecordKind(IntEnum):
    """The kinds of record. The numbers are part of the journal's format: never reuse one."""

    READINGS = 1
    FINDING = 2
    PART = 3
    TICK = 4
    CONTROL = 5
    BACKFILL = 6
    CHART = 7
    SIGNAL = 8
    MACHINE_STATE = 9
    LEDGER = 10
    AGENT = 11
    GAP = 12
    EVENT = 13
    ACTION = 14


Row = (
    Finding
    | PartEvent
    | Verdict
    | Control
    | ChartPoint
    | SignalInfo
    | MachineState
    | LedgerRow
    | AgentRow
    | Gap
    | MachineEvent
    | ActionRow
)

KIND_OF_ROW: dict[type, RecordKind] = {
    Finding: RecordKind.FINDING,
    PartEvent: RecordKind.PART,
    Verdict: RecordKind.PART,
    Control: RecordKind.CONTROL,
    ChartPoint: RecordKind.CHART,
    SignalInfo: RecordKind.SIGNAL,
    MachineState: RecordKind.MACHINE_STATE,
    LedgerRow: RecordKind.LEDGER,
    AgentRow: RecordKind.AGENT,
    Gap: RecordKind.GAP,
    MachineEvent: RecordKind.EVENT,
    ActionRow: RecordKind.ACTION,
}


class Record(msgspec.Struct, frozen=True, eq=False):
    """One record of the journal.

    Attributes:
        position: where it stands in the journal; ascending, never reused. 0 before it is committed.
        kind: what it holds.
        time: when it was committed, ns; for a tick, the tick itself.
        batch: the readings, for READINGS and BACKFILL.
        rows: the rows, for every other kind but TICK.
    """

    position: int
    kind: RecordKind
    time: int
    batch: Batch | None = None
    rows: tuple[Row, ...] = ()
