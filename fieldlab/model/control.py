"""Journal records that steer the judgement, and the state of machines."""

from typing import Any, Literal

import msgspec

from fieldlab.model.place import Place


class Control(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Changes how later records are judged. Charts never read a clock or a file: they read this.

    Attributes:
        time: when it was decided, ns.
        action: `configure` (detail: the analytics configuration), `freeze`, `acknowledge` or `shelve`.
        by: who decided.
        detail: what, as JSON can hold it.
    """

    time: int
    action: Literal["configure", "freeze", "acknowledge", "shelve"]
    by: str = ""
    detail: dict[str, Any] = {}


class MachineState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A machine's state changed: a row of the measurement `machine_state`."""

    time: int
    place: Place
    state: str
