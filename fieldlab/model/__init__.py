"""The words everyone shares: readings, signals, findings, parts and their records.

Imports nothing of the rest of Fieldlab, so that every package may import it.
"""

from fieldlab.model.action import ActionOutcome, ActionRow
from fieldlab.model.batch import Batch, BatchBuilder, concat
from fieldlab.model.chart import ChartPoint, Limits
from fieldlab.model.control import Control, MachineState
from fieldlab.model.event import MachineEvent
from fieldlab.model.finding import Finding, FindingState, Severity
from fieldlab.model.part import PartEvent, PartEventKind, Verdict, VerdictKind
from fieldlab.model.place import Place, SignalKey
from fieldlab.model.record import Record, RecordKind
from fieldlab.model.signal import Guarantee, SignalInfo, SignalKind, SignalTable
from fieldlab.model.trust import AgentRow, Gap, GapCause, GapState, LedgerRow, gap_id

__all__ = [
    "ActionOutcome",
    "ActionRow",
    "AgentRow",
    "Batch",
    "BatchBuilder",
    "ChartPoint",
    "Control",
    "Finding",
    "FindingState",
    "Gap",
    "GapCause",
    "GapState",
    "Guarantee",
    "LedgerRow",
    "Limits",
    "MachineEvent",
    "MachineState",
    "PartEvent",
    "PartEventKind",
    "Place",
    "Record",
    "RecordKind",
    "Severity",
    "SignalInfo",
    "SignalKey",
    "SignalKind",
    "SignalTable",
    "Verdict",
    "VerdictKind",
    "concat",
    "gap_id",
]
