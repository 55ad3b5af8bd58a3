"""What a simulated machine says of itself and of its parts: plain records, all frozen."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a signal.

    Attributes:
        name: unique in its machine.
        unit: as printed; empty if it has none.
        kind: gauge, counter, state or text.
        low: lower end of the sensor's range (EURange).
        high: upper end of the sensor's range.
        lsl: lower specification limit.
        usl: upper specification limit.
        target: nominal value.
        per_part: how the values of one part follow those of the last, when no fault is active: `iid` (normal and
            independent, made for a control chart), `autocorrelated` (slow, such as a temperature), or empty (text,
            and what is the same in every part, such as the axis of a curve).
        about: what it is, in words.
    """

    name: str
    unit: str = ""
    kind: Literal["gauge", "counter", "state", "text"] = "gauge"
    low: float | None = None
    high: float | None = None
    lsl: float | None = None
    usl: float | None = None
    target: float | None = None
    per_part: Literal["iid", "autocorrelated", ""] = ""
    about: str = ""


def gauge(
    name: str,
    unit: str,
    span: tuple[float, float],
    per_part: Literal["iid", "autocorrelated", ""],
    about: str,
    *,
    spec: tuple[float | None, float | None] = (None, None),
    target: float | None = None,
) -> Signal:
    """A gauge in one line: `span` is the sensor's range, `spec` the lower and upper specification limit."""
    return Signal(
        name=name,
        unit=unit,
        low=span[0],
        high=span[1],
        lsl=spec[0],
        usl=spec[1],
        target=target,
        per_part=per_part,
        about=about,
    )


STATE = Signal(name="state", kind="state", about="idle while a part is loaded, running while it is made")
PART_ID = Signal(name="part_id", kind="text", about="the part on the machine; empty when there is none")


CONTEXT = (
    Signal(name="material_lot", kind="text", about="the lot that the part is made of"),
    Signal(name="shift", kind="text", about="early, late or night"),
    Signal(name="operator", kind="text", about="who minds the machine"),
)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What rides along with the parts of a machine; it then has the signals of `CONTEXT`, too.

    Attributes:
        lot_parts: parts made of one lot of material.
        shift: length of a shift, s; three to a day, cut at the epoch.
        people: who minds the machine, one a shift in turn.
    """

    lot_parts: int = 100
    shift: float = 28800.0
    people: tuple[str, ...] = ("A. de Vries",)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A process fault to inject.

    Attributes:
        kind: one of the machine's `FAULTS`.
        start_part: the first part it affects; 1 is the first part made.
        end_part: the first part after the repair; None for never.
        severity: 1 is the size that the machine's file describes; effects scale with it.
    """

    kind: str
    start_part: int
    end_part: int | None = None
    severity: float = 1.0


class Reading(NamedTuple):
    """One value of one signal.

    Attributes:
        signal: its name.
        ts: ns, UTC.
        value: a number or text.
        status: an OPC UA StatusCode; with a Bad one the value is not sent.
        timed: whether it is sent with its time; if not, the reader's clock decides.
        copy: whether it was sent before, and is sent once more.
    """

    signal: str
    ts: int
    value: float | str
    status: int = 0
    timed: bool = True
    copy: bool = False


class Part(NamedTuple):
    """A part that was made: its true dimensions, and whether they are within the specification."""

    id: str
    start: int
    end: int
    good: bool
    why: str
    dimensions: dict[str, float]


class FaultEvent(NamedTuple):
    """A fault that began (`end` None) or ended; the same `id` joins both.

    `downstream` names machines further on the line, with the signals in which they feel it.
    """

    id: str
    kind: str
    signals: tuple[str, ...]
    start: int
    end: int | None
    first_part: str
    severity: float
    downstream: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Step(NamedTuple):
    """What happened in a stretch of time, each list ascending in time."""

    readings: list[Reading]
    parts: list[Part]
    faults: list[FaultEvent]


class Cycle(msgspec.Struct, frozen=True, eq=False):
    """What a machine makes of one part.

    Attributes:
        samples: signal → one value a tick, (ticks,); NaN where the signal is silent.
        events: (tick, signal, value): values published once.
        dimensions: the true dimensions.
        why: what is out of specification; empty for a good part.
    """

    samples: Mapping[str, NDArray[np.float64]]
    events: Sequence[tuple[int, str, float | str]]
    dimensions: dict[str, float]
    why: str


class Active(NamedTuple):
    """A fault in force: its severity, and how many affected parts were made before this one."""

    severity: float
    age: int
