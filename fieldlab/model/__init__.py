"""The words everyone shares: readings, signals, findings, parts and their records.

Imports nothing of the rest of Fieldlab, so that every package may import it.
"""

from fieldlab.model.batch import Batch, BatchBuilder, concat
from fieldlab.model.chart import ChartPoint, Limits
from fieldlab.model.control import Control, MachineState
from fieldlab.model.finding import Finding, FindingState, Severity
from fieldlab.model.part import PartEvent, PartEventKind, Verdict, VerdictKind
from fieldlab.model.place import Place, SignalKey
from fieldlab.model.record import Record, RecordKind
from fieldlab.model.signal import Guarantee, SignalInfo, SignalKind, SignalTable
from fieldlab.model.trust import AgentRow, LedgerRow

__all__ = [
    "AgentRow",
    "Batch",
    "BatchBuilder",
    "ChartPoint",
    "Control",
    "Finding",
    "FindingState",
    "Guarantee",
    "LedgerRow",
    "Limits",
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
]
