"""What is published: topics and JSON of findings, verdicts and part events."""

from typing import Any

import msgspec

from fieldlab.model import Finding, PartEvent, Place, Verdict

Told = Finding | Verdict | PartEvent


def topic(prefix: str, row: Told) -> str:
    """`PREFIX/site/area/line/machine/_finding` or `…/_part`."""
    return f"{prefix}/{row.place.path}/{'_finding' if isinstance(row, Finding) else '_part'}"


def payload(row: Told) -> bytes:
    """Every field of the row, also those at their default; `type` is finding, verdict or event.

    `time` is ns; the place is `place`, as a path. What has no value (absent, NaN) is null.
    """
    kind = {Finding: "finding", Verdict: "verdict", PartEvent: "event"}[type(row)]
    fields: dict[str, Any] = {name: getattr(row, name) for name in row.__struct_fields__}
    place: Place = fields.pop("place")
    return msgspec.json.encode({"type": kind, "place": place.path, **fields})
