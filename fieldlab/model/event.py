"""What a machine itself reports: events, alarms and conditions."""

import msgspec

from fieldlab.model.place import Place


class MachineEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of a machine: a row of the measurement `event`, append-only. Those of one condition share `condition`.

    Attributes:
        time: when it happened at the machine, ns.
        place: the machine.
        source: what it is about on the machine, such as `Spindle`.
        kind: its type's name, such as `ExclusiveLevelAlarmType`.
        id: the machine's id of this event, as hexadecimal digits or text.
        condition: the id of the condition that it is a state of; empty for a plain event.
        severity: 1 to 1000 (OPC 10000-5, 6.4.2).
        message: in words.
        active: whether the condition holds now; None where it cannot be said.
        acknowledged: whether somebody acknowledged it; None as above.
        retain: whether the condition still wants attention; None as above.
        detail: other fields, such as the limit that was crossed.
    """

    time: int
    place: Place
    source: str
    kind: str
    id: str
    condition: str = ""
    severity: int = 0
    message: str = ""
    active: bool | None = None
    acknowledged: bool | None = None
    retain: bool | None = None
    detail: dict[str, str] = {}
