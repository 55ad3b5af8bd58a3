"""What a chart or a health check concluded."""

import hashlib
from typing import Literal

import msgspec

from fieldlab.model.place import Place

FindingState = Literal["raised", "acknowledged", "shelved", "cleared"]
Severity = Literal["warning", "alarm"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One revision of a finding: a row of the measurement `finding`.

    One excursion is one finding, however many readings it spans; its revisions share `id`.

    Attributes:
        time: event time of this revision, ns.
        place: the machine.
        signal: the signal's name; `_all` for a multivariate chart.
        chart: the chart's name.
        rule: which rule fired, such as `1` or `ewma`.
        id: see `finding_id`.
        revision: 1 when raised, one more at each change of state.
        state: ISA-18.2 state.
        severity: warning or alarm.
        statistic: the value that was judged, in the chart's own unit.
        limit: the limit that it crossed, in the same unit.
        limits_version: which frozen limits.
        part: the part made at that time, if known.
        detail: in words, for the operator.
    """

    time: int
    place: Place
    signal: str
    chart: str
    rule: str
    id: str
    revision: int = 1
    state: FindingState = "raised"
    severity: Severity = "alarm"
    statistic: float = 0.0
    limit: float = 0.0
    limits_version: int = 0
    part: str = ""
    detail: str = ""


def finding_id(place: Place, signal: str, chart: str, rule: str, time: int, limits_version: int) -> str:
    """16 hexadecimal digits that the same finding always gets, crash or not."""
    words = f"{place.path}\0{signal}\0{chart}\0{rule}\0{time}\0{limits_version}"
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
