"""Parts: what was made, what happened to it, and the verdict."""

from typing import Literal

import msgspec

from fieldlab.model.place import Place

PartEventKind = Literal["start", "end", "consume", "measure", "inspect", "rework", "hold", "release"]
VerdictKind = Literal["pass", "suspect", "fail"]


class PartEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="event"):
    """Something that happened to a part: a row of the measurement `part_event`, append-only.

    Attributes:
        time: event time, ns.
        place: the machine.
        event: what happened.
        id: the part.
        other: the child part, lot, tool or signal that the event is about.
        value: a number, where the event has one.
        text: a text, where the event has one.
    """

    time: int
    place: Place
    event: PartEventKind
    id: str
    other: str = ""
    value: float | None = None
    text: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="verdict"):
    """The judgement of one part: a row of the measurement `part`. A later one is a new revision.

    Attributes:
        time: event time of the part's end, ns.
        place: the machine.
        id: the part.
        revision: 1 for the first verdict.
        verdict: pass, suspect or fail.
        score: 0 (surely good) to 1 (surely bad).
        reasons: ranked, most important first, in words.
        start: event time of the part's start, ns.
        features: `signal.feature` → value, what was judged.
        genealogy: text signals that rode along, such as tool and material lot.
        limits_versions: chart → version of the limits in force.
    """

    time: int
    place: Place
    id: str
    revision: int = 1
    verdict: VerdictKind = "pass"
    score: float = 0.0
    reasons: tuple[str, ...] = ()
    start: int = 0
    features: dict[str, float] = {}
    genealogy: dict[str, str] = {}
    limits_versions: dict[str, int] = {}
